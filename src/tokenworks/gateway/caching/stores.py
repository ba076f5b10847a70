"""Where answers are kept: in this process, or on a Valkey or Redis server that gateways share."""

import logging
import time
from collections import OrderedDict
from typing import Protocol

import msgspec

from tokenworks.gateway.admission.limits.resp import Server, ServerError

LARGEST = 1024 * 1024
"""Bytes of an answer; a larger one is not kept."""
ENTRY_BYTES = 512
"""What an entry takes beside its answer, about."""
PREFIX = "tw:cache:1:"
"""The number goes up when `Kept` changes its shape."""

log = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """An answer as its caller got it. `at` Unix seconds; `pieces` a stream's, or one whole answer, whose cost is not
    in it yet; `charge` what its first caller paid, in nano-dollars; `id` the one it had, "" if none."""

    at: float
    pieces: list[bytes]
    upstream: str
    model: str
    charge: int
    finish_reason: str
    id: str
    ignored: list[str]


class Store(Protocol):
    """Losing an answer is no error: it is asked for anew."""

    async def get(self, key: str) -> Kept | None: ...

    async def put(self, key: str, kept: Kept, seconds: int) -> None: ...

    async def close(self) -> None: ...


class MemoryStore:
    """At most `most` bytes; those that were not asked for longest go first."""

    def __init__(self, most: int) -> None:
        self.size = 0
        self._most = most
        self._entries: OrderedDict[str, tuple[float, int, Kept]] = OrderedDict()

    async def get(self, key: str) -> Kept | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        ends, _, kept = entry
        if ends <= time.monotonic():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return kept

    async def put(self, key: str, kept: Kept, seconds: int) -> None:
        self._drop(key)
        size = ENTRY_BYTES + sum(map(len, kept.pieces))
        if size > self._most:
            return
        self._entries[key] = (time.monotonic() + seconds, size, kept)
        self.size += size
        while self.size > self._most:
            self._drop(next(iter(self._entries)))

    async def close(self) -> None:
        self._entries.clear()

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry[1]


class ValkeyStore:
    """The server's own memory policy bounds it; a server that is away is a cache without answers."""

    def __init__(self, url: str, timeout: float) -> None:
        self._server = Server(url, timeout)
        self._decode = msgspec.msgpack.Decoder(Kept).decode
        self._encode = msgspec.msgpack.Encoder().encode

    async def get(self, key: str) -> Kept | None:
        try:
            found = await self._server.call("GET", PREFIX + key)
            return self._decode(found) if isinstance(found, bytes) else None
        except (OSError, TimeoutError, ServerError, msgspec.MsgspecError) as error:
            log.warning("the cache of answers cannot be asked: %s", error)
            return None

    async def put(self, key: str, kept: Kept, seconds: int) -> None:
        try:
            await self._server.call("SET", PREFIX + key, self._encode(kept), "EX", seconds)
        except (OSError, TimeoutError, ServerError) as error:
            log.warning("an answer was not kept: %s", error)

    async def close(self) -> None:
        await self._server.close()


def cache_store(where: str, timeout: float, most: int) -> Store:
    """`memory`, or the URL of a server. ValueError when it is neither."""
    return MemoryStore(most) if where == "memory" else ValkeyStore(where, timeout)
