"""Two upstreams for one answer: the second is asked when the first is late, and the first output wins.

The loser is cancelled. The caller pays for the one that answers; what the other costs us is in the journal beside it.
"""

import asyncio
from collections.abc import Awaitable, Callable

from tokenworks.gateway.failover.health import Health
from tokenworks.gateway.failover.trying import Overtaken, Try

SOONEST = 0.02
"""Seconds: below that a hedge only doubles the load."""


def hedge_after(health: Health, first: Try, percentile: float) -> float | None:
    """Seconds after which `first` is late; None when that cannot be told, or not be seen."""
    if not percentile or not first.prepared.stream:
        return None
    usual = health.first_token(first.target, percentile)
    return None if usual is None else max(usual, SOONEST)


async def race(
    first: Try, begin: Callable[[Try], Awaitable[None]], wait: float, second: Callable[[], Awaitable[Try | None]]
) -> Try:
    """The one that has begun first. `second` gives another one to begin `wait` seconds later, or None.

    Raises the error of the last when none could begin.
    """
    running = {asyncio.ensure_future(begin(first)): first}
    winner: Try | None = None
    try:
        await asyncio.wait(running, timeout=wait)
        if not any(task.done() for task in running) and (other := await second()) is not None:
            running[asyncio.ensure_future(begin(other))] = other
        while winner is None:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                one = running.pop(task)
                error = task.exception()
                if winner is not None:
                    if error is None:
                        await one.abandon(Overtaken())
                elif error is None:
                    winner = one
                elif not running:
                    raise error
        return winner
    finally:
        for task, one in running.items():
            one.overtaken = winner is not None
            task.cancel()
        if running:
            await asyncio.wait(running)
