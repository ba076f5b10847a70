"""Half-open circuits: asks an upstream that failed again and again, with requests of our own, until it answers."""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import replace

from tokenworks.core.errors import TokenworksError
from tokenworks.core.target import Target
from tokenworks.gateway.failover.health import TRIPPING, Health
from tokenworks.gateway.upstreams.probe import Probe
from tokenworks.snapshot.state import State

FIRST, LONGEST, GROWTH = 0.5, 3.0, 1.5
"""Seconds between probes of one circuit: recovery is seen within the longest, and what a probe takes."""

log = logging.getLogger(__name__)


class Prober:
    def __init__(self, health: Health, probe: Probe, state: Callable[[], State]) -> None:
        self._health = health
        self._probe = probe
        self._state = state
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        health.opened = self.watch

    def watch(self, target: Target, task: type) -> None:
        """The circuit of `target` has opened."""
        key = (target.upstream, target.model)
        if key not in self._running:
            asking = self._running[key] = asyncio.create_task(self._ask(target, task), name=f"probe {target.upstream}")
            asking.add_done_callback(lambda _: self._running.pop(key, None))

    async def stop(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, target: Target, task: type) -> None:
        log.warning("circuit of %s opened: it failed again and again; it is being probed", target.upstream)
        limits = replace(target.limits, total=min(target.limits.total, target.limits.first_token + target.limits.idle))
        wait = FIRST
        while (upstream := self._state().upstreams.get(target.upstream)) is not None:
            await asyncio.sleep(wait * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, keeps no secret
            wait = min(wait * GROWTH, LONGEST)
            try:
                await self._probe.ask(upstream, target.model, task, limits)
            except TokenworksError as error:
                if error.fault in TRIPPING:
                    continue
                # Whoever refuses a probe in so many words is alive.
            log.info("circuit of %s closed", target.upstream)
            break
        self._health.standing(target.upstream, target.model).breaker.close()
