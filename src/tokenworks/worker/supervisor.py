"""Keeps one engine alive: start, watch, restart with back-off, and the reason of each end.

Knows no kind of engine and no control; it speaks through `Status`.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tokenworks.worker.backoff import Backoff
from tokenworks.worker.engines.base import Engine, EngineFailed
from tokenworks.worker.status import State, Status

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Health:
    """Seconds: how often an engine is looked at, and how long it may take for one token."""

    interval: float = 5.0
    timeout: float = 30.0


class Supervisor:
    """`run` until cancelled, then `engine.stop()`. `weights` gives the file, or None for an engine without."""

    def __init__(
        self, engine: Engine, weights: Callable[[], Awaitable[Path | None]], status: Status, health: Health
    ) -> None:
        self._engine = engine
        self._weights = weights
        self._status = status
        self._health = health

    async def run(self) -> None:
        backoff = Backoff()
        lived = False
        while True:
            lifetime = 0.0
            try:
                await self._engine.start(await self._weights())
            except EngineFailed as error:
                reason, state = str(error), State.FAILED
            else:
                lived, begun = True, time.monotonic()
                self._status.set(State.READY)
                log.info("ready")
                reason, state = await self._end_of_life(), State.RESTARTING
                lifetime = time.monotonic() - begun
            await self._engine.stop()
            self._status.restarts += 1
            self._status.set(state, reason)
            pause = backoff.next(lifetime)
            problem = "the engine ended" if state is State.RESTARTING else "the engine does not start"
            log.error("%s: %s; next try in %g s", problem if lived else "the engine does not start", reason, pause)
            await asyncio.sleep(pause)

    async def _end_of_life(self) -> str:
        """Waits until the engine is dead or hangs: the reason."""
        died = asyncio.create_task(self._engine.died())
        sick = asyncio.create_task(self._sickness())
        try:
            await asyncio.wait({died, sick}, return_when=asyncio.FIRST_COMPLETED)
            if not died.done():
                # A failing probe is often the first sign of a death whose reason comes a moment later.
                await asyncio.wait({died}, timeout=1)
            return died.result() if died.done() else sick.result()
        finally:
            for task in (died, sick):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _sickness(self) -> str:
        """Looks again and again; returns what is wrong. An engine at work proves its health by its progress."""
        seen = await self._progress()
        while True:
            await asyncio.sleep(self._health.interval)
            now = await self._progress()
            if now is None or now == seen:
                reason = await self._probe(now)
                if reason:
                    return reason
                now = await self._progress()
            seen = now

    async def _probe(self, before: float | None) -> str:
        """One token within the time; "" when it came, or when the engine was busy with others meanwhile."""
        try:
            async with asyncio.timeout(self._health.timeout):
                await self._engine.probe()
        except TimeoutError:
            after = await self._progress()
            if after is None or after == before:
                return f"hung: no token within {self._health.timeout:g} s"
        except EngineFailed as error:
            return f"the health probe failed: {error}"
        return ""

    async def _progress(self) -> float | None:
        with contextlib.suppress(TimeoutError, EngineFailed):
            async with asyncio.timeout(self._health.timeout):
                return await self._engine.progress()
        return None
