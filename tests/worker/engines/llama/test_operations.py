"""Ten thousand operations at random on the real engine: requests that flood it, are left alone, cancelled before, while
and after they run, refused, constrained, resumed and overdue. Nothing of them is left."""

import asyncio
import contextlib
import random
import threading
from typing import Any

from tokenworks.core.errors import TokenworksError
from tokenworks.protocols.worker import types as wire

OPERATIONS = 10_000
AT_ONCE = 200
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "one", "two", "three", "red", "blue", "green"]


def drawn(rng: random.Random) -> dict[str, Any]:
    prompt = " ".join(rng.choice(WORDS) for _ in range(rng.choice((1, 2, 3, 3, 40))))
    request: dict[str, Any] = {
        "prompts": (prompt,),
        "max_tokens": rng.randint(1, 3),
        "tenant": f"t{rng.randrange(5)}",
        "priority": rng.choice(("interactive", "standard", "batch")),
        "sampling": wire.Sampling(temperature=0.0, ignore_eos=True),
    }
    match rng.randrange(40):
        case 0:
            request["n"] = 2
        case 1:
            request["deadline"] = 0.01
        case 2:
            request["json_schema"] = {"type": "boolean"}
            request["sampling"] = wire.Sampling(temperature=0.0)
        case 3:
            request["max_tokens"] = 10_000  # more than fits
        case 4:
            request["resume"] = ((5, 6),)
            request["max_tokens"] = 4
    return request


def test_ten_thousand_random_operations_leave_nothing_behind(bench: Any) -> None:
    rng = random.Random(11)
    threads = threading.active_count()
    outcomes: dict[str, int] = {}

    async def one(request: dict[str, Any], patience: int) -> str:
        """Reads `patience` events, then leaves."""
        try:
            async with contextlib.aclosing(bench.generator.answer(wire.GenerateRequest(**request))) as answer:
                async for _ in answer:
                    patience -= 1
                    if patience <= 0:
                        return "left"
        except TokenworksError as error:
            return type(error).__name__
        return "answered"

    async def operations() -> None:
        running: set[asyncio.Task[str]] = set()

        def ended(task: asyncio.Task[str]) -> None:
            running.discard(task)
            name = "cancelled" if task.cancelled() else task.result()
            outcomes[name] = outcomes.get(name, 0) + 1

        for _ in range(OPERATIONS):
            action = rng.random()
            if len(running) >= AT_ONCE:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if action < 0.52:
                task = asyncio.create_task(one(drawn(rng), rng.choice((1, 2, 1000))))
                task.add_done_callback(ended)
                running.add(task)
            elif action < 0.96 and running:
                rng.choice(sorted(running, key=id)).cancel()
            else:
                await asyncio.sleep(0.01 * rng.random())
        await asyncio.gather(*running, return_exceptions=True)

    bench.runner.run(operations())
    bench.assert_empty()
    assert bench.generator._living == set()
    assert threading.active_count() <= threads + 8, "the pool that reads requests has its threads; no others"
    assert {"answered", "cancelled", "left", "ContextLengthExceeded"} <= outcomes.keys(), outcomes
    assert outcomes["answered"] + outcomes["left"] > OPERATIONS / 200, outcomes
