"""One engine with the default weights for all tests here, and ways to ask it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenworks.client import Address
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.base import Setup
from tokenworks.worker.engines.llama.generator import Generator
from tokenworks.worker.engines.llama.model import Model
from tokenworks.worker.engines.llama.options import MEBIBYTE, Plan


class Bench:
    """An engine and a loop to run it in. `ask` gives all events of an answer; `at_once` those of many."""

    def __init__(self, weights: Path, **more: Any) -> None:
        self.plan = Plan(
            **{
                "model": "m",
                "weights": str(weights),
                "address": "unix:/unused.sock",
                "slots": 4,
                "context": 1024,
                "threads": 2,
                "batch": 256,
                "step": 0.08,
                "queue": 64,
                "cache": 64 * MEBIBYTE,
                "gpu_layers": 0,
                "template": None,
                "lookup": True,
                "lookup_memory": 8 * MEBIBYTE,
                "parent": 0,
            }
            | more
        )
        self.runner = asyncio.Runner()
        self.generator = Generator(Setup("m", Address.parse(self.plan.address)), self.plan)
        self.runner.run(self.generator.start(weights))

    @property
    def scheduler(self) -> Any:
        return self.generator.runner.scheduler

    def close(self) -> None:
        self.runner.run(self.generator.stop())
        self.runner.close()

    async def answer(self, **request: Any) -> list[wire.Event]:
        return [event async for event in self.events(**request)]

    async def events(self, **request: Any) -> AsyncIterator[wire.Event]:
        async for batch in self.generator.answer(wire.GenerateRequest(**request)):
            for event in batch:
                assert not isinstance(event, bytes)
                yield event

    def ask(self, **request: Any) -> list[wire.Event]:
        return self.runner.run(self.answer(**request))

    def at_once(self, *requests: dict[str, Any]) -> list[list[wire.Event]]:
        async def all_of_them() -> list[list[wire.Event]]:
            return await asyncio.gather(*[self.answer(**request) for request in requests])

        return self.runner.run(all_of_them())

    def do(self, operation: Callable[[], Any]) -> Any:
        """In the engine's thread."""

        async def done() -> Any:
            loop = asyncio.get_running_loop()
            result: asyncio.Future[Any] = loop.create_future()
            self.generator.runner.call(lambda: loop.call_soon_threadsafe(result.set_result, operation()))
            return await result

        return self.runner.run(done())

    def assert_empty(self) -> None:
        """Neither sequence nor slot, cell, pin or owner is left."""

        def look() -> None:
            scheduler, kernel = self.scheduler, self.generator.runner.kernel
            assert not scheduler.has_work()
            assert not self.generator.runner._owners
            assert not scheduler._kept
            assert scheduler._slots.free == kernel.slots
            assert [kernel.held(slot) for slot in range(kernel.slots)] == [0] * kernel.slots

        self.do(look)


def text(events: list[wire.Event], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, wire.Tokens) and event.index == index)


def ids(events: list[wire.Event], index: int = 0) -> list[int]:
    return [one for event in events if isinstance(event, wire.Tokens) and event.index == index for one in event.ids]


@pytest.fixture(scope="session")
def text_of() -> Callable[..., str]:
    return text


@pytest.fixture(scope="session")
def ids_of() -> Callable[..., list[int]]:
    return ids


@pytest.fixture(scope="session")
def bench(smollm2: Path) -> Iterator[Bench]:
    made = Bench(smollm2)
    yield made
    made.assert_empty()
    made.close()


@pytest.fixture(scope="session")
def other_bench(smollm2: Path) -> Callable[..., Bench]:
    """One with other settings; the test closes it."""
    return lambda **more: Bench(smollm2, **more)


@pytest.fixture(scope="session")
def model(bench: Bench) -> Model:
    return bench.generator.intake.model
