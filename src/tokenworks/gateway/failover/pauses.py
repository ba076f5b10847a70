"""Pauses that upstreams ask for, known to every gateway that shares a limit store: by the store's clock.

A pause is told at once and heard within half a second. While the store is away each gateway knows its own.
"""

import asyncio
import logging
from collections.abc import Coroutine

import msgspec

from tokenworks.gateway.admission.limits.resp import Server, ServerError
from tokenworks.gateway.failover.health import LONGEST_PAUSE, Health

HEAR_SECONDS = 0.5
KEY = "tw:pauses"
_NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) "
_TELL = (
    _NOW + "redis.call('ZADD', KEYS[1], 'GT', now + ARGV[2], ARGV[1]) redis.call('PEXPIRE', KEYS[1], ARGV[3]) return 1"
)
_HEAR = (
    _NOW
    + """redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local found, pauses = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), {}
for i = 1, #found, 2 do pauses[found[i]] = found[i + 1] - now end
if next(pauses) == nil then return '{}' end
return cjson.encode(pauses)"""
)
_READ = msgspec.json.Decoder(dict[str, float])

log = logging.getLogger(__name__)


class SharedPauses:
    """Tells the others what `health` learns, and `health` what the others learned."""

    def __init__(self, health: Health, url: str, timeout: float) -> None:
        self._health = health
        self._server = Server(url, timeout)
        self._tasks: set[asyncio.Task[None]] = set()
        health.noted = self._noted

    def start(self) -> None:
        self._run(self._listen())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.close()

    def _noted(self, upstream: str, seconds: float) -> None:
        self._run(self._tell(upstream, seconds))

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, upstream: str, seconds: float) -> None:
        longest = round(LONGEST_PAUSE * 1000)
        milliseconds = min(round(seconds * 1000), longest)
        try:
            await self._server.call("EVAL", _TELL, 1, KEY, upstream, milliseconds, longest)
        except (OSError, TimeoutError, ServerError) as error:
            log.warning("a pause of %s was not told to other gateways: %s", upstream, error)

    async def _listen(self) -> None:
        while True:
            await asyncio.sleep(HEAR_SECONDS)
            try:
                told = await self._server.call("EVAL", _HEAR, 1, KEY)
            except (OSError, TimeoutError, ServerError):
                continue  # its being away is reported by the limits, which need it more
            if isinstance(told, bytes):
                for upstream, milliseconds in _READ.decode(told).items():
                    self._health.pause(upstream, milliseconds / 1000)
