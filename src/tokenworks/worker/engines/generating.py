"""Engines of ours: they run in the worker's process and are reached through the worker protocol."""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.base import Description, Engine, EngineFailed, Setup
from tokenworks.worker.engines.kv_events import KVEvents

Batch = Sequence[wire.Event | bytes]
TELL_MS = 100
"""An answer tells how long it was computed whenever it is so much longer: its caller may leave before its end."""
PROBE = wire.GenerateRequest(prompts=("ping",), max_tokens=1)


class EngineDied(Exception):
    """The engine went away under a running request: the answer is cut, never finished."""


class GeneratingEngine(Engine):
    """A subclass generates; this counts, describes and probes."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.running = 0
        self.generated = 0
        self._death: asyncio.Future[str] | None = None

    @abstractmethod
    def generate(self, request: wire.GenerateRequest) -> AsyncGenerator[Batch, None]:
        """Events in batches, `Started` alone in the first one; closing the iterator frees everything.

        Before the first batch it raises a core error for a request that it refuses. Bytes are sent as they are.
        """

    @abstractmethod
    def tokenize(self, text: str) -> list[int]: ...

    @abstractmethod
    def detokenize(self, ids: list[int]) -> str:
        """InvalidRequest for an id that is no token."""

    @abstractmethod
    def render(self, messages: Sequence[wire.Message], tools: Sequence[wire.Tool]) -> str:
        """The chat template."""

    def kv_events(self) -> KVEvents | None:
        """What it holds of prompts, where it tells that."""
        return None

    async def answer(self, request: wire.GenerateRequest) -> AsyncGenerator[Batch, None]:
        """`generate`, counted."""
        self.running += 1
        try:
            async with aclosing(self.generate(request)) as batches:
                async for batch in batches:
                    self.generated += sum(len(event.ids) for event in batch if isinstance(event, wire.Tokens))
                    yield batch
        finally:
            self.running -= 1

    def describe(self) -> Description:
        address = self.setup.address
        base_url = f"unix:{address.socket}|{wire.PREFIX}" if address.socket else f"{address.origin}{wire.PREFIX}"
        return Description(
            protocols=("worker",),
            base_url=base_url,
            capabilities=self.setup.capabilities,
            context_length=self.setup.context_length,
            max_output=self.setup.max_output,
        )

    def alive(self) -> bool:
        return self._death is not None and not self._death.done()

    def _die(self, reason: str) -> None:
        if self._death is not None and not self._death.done():
            self._death.set_result(reason)

    async def died(self) -> str:
        if self._death is None:
            return "not started"
        return await asyncio.shield(self._death)

    async def probe(self) -> None:
        if not self.alive():
            raise EngineFailed("the engine is not running")
        async with aclosing(self.answer(PROBE)) as batches:
            async for batch in batches:
                for event in batch:
                    if isinstance(event, wire.Tokens):
                        return
        raise EngineFailed("the probe generated nothing")

    async def progress(self) -> float:
        return self.generated

    async def in_flight(self) -> int:
        return self.running

    async def metrics(self) -> str:
        return ""

    async def stop(self) -> None:
        self._die("stopped")
