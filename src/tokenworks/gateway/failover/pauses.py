"""Pauses that upstreams ask for and keys that rest, known to every gateway that shares a limit store: by its clock.

They are told at once and heard within half a second. While the store is away each gateway knows its own.
"""

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial

import msgspec

from tokenworks.gateway.admission.limits.resp import Server, ServerError
from tokenworks.gateway.failover.health import LONGEST_PAUSE, Health
from tokenworks.gateway.upstreams.keyring import Keyring

HEAR_SECONDS = 0.5
KEY = "tw:pauses"
MOST = 10_000
"""Of all that is told at one time; what ends soonest goes first."""
_UPSTREAM, _CREDENTIAL = "u:", "k:"
_NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) "
_TELL = (
    _NOW + "redis.call('ZADD', KEYS[1], 'GT', now + ARGV[2], ARGV[1]) redis.call('PEXPIRE', KEYS[1], ARGV[3]) "
    f"redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -{MOST + 1}) return 1"
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
    """Tells the others what `health` and `keyring` learn, and those what the others learned."""

    def __init__(self, health: Health, keyring: Keyring, url: str, timeout: float) -> None:
        self._hear = {_UPSTREAM: health.pause, _CREDENTIAL: keyring.rest}
        self._server = Server(url, timeout)
        self._tasks: set[asyncio.Task[None]] = set()
        health.noted = partial(self._noted, _UPSTREAM)
        keyring.noted = partial(self._noted, _CREDENTIAL)

    def start(self) -> None:
        self._run(self._listen())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.close()

    def _noted(self, kind: str, name: str, seconds: float) -> None:
        self._run(self._tell(kind + name, seconds))

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, whose: str, seconds: float) -> None:
        longest = round(LONGEST_PAUSE * 1000)
        milliseconds = min(round(seconds * 1000), longest)
        try:
            await self._server.call("EVAL", _TELL, 1, KEY, whose, milliseconds, longest)
        except (OSError, TimeoutError, ServerError) as error:
            log.warning("a pause of %s was not told to other gateways: %s", whose[2:], error)

    async def _listen(self) -> None:
        while True:
            await asyncio.sleep(HEAR_SECONDS)
            try:
                told = await self._server.call("EVAL", _HEAR, 1, KEY)
            except (OSError, TimeoutError, ServerError):
                continue  # its being away is reported by the limits, which need it more
            if isinstance(told, bytes):
                for whose, milliseconds in _READ.decode(told).items():
                    if (hear := self._hear.get(whose[:2])) is not None:
                        hear(whose[2:], milliseconds / 1000)
