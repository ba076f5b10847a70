"""Where answers are kept: in this process, or on a Valkey or Redis server that gateways share."""

import logging
import struct
import time
from collections import OrderedDict
from typing import Protocol

import msgspec

from tokenworks.gateway.admission.limits.resp import Answer, Server, ServerError, Word

LARGEST = 1024 * 1024
"""Bytes of an answer; a larger one is not kept."""
AWAY_SECONDS = 1.0
ENTRY_BYTES = 512
"""What an entry takes beside its answer, about."""
MOST_NOTES = 128
"""Of one name."""
PREFIX = "tw:cache:1:"
NOTES = "tw:cache:notes:1:"
_NOTE = f"""redis.call('LPUSH', KEYS[1], ARGV[1]) redis.call('LTRIM', KEYS[1], 0, {MOST_NOTES - 1})
redis.call('EXPIRE', KEYS[1], ARGV[2]) return 1"""
_NOTED = """local all = {}
for _, each in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do all[#all + 1] = struct.pack('>I4', #each) .. each end
return table.concat(all)"""
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
    """Losing an answer is no error: it is asked for anew. Beside them are notes, a list of the youngest of a name."""

    async def get(self, key: str) -> Kept | None: ...

    async def put(self, key: str, kept: Kept, seconds: int) -> None: ...

    async def notes(self, name: str) -> list[bytes]: ...

    async def note(self, name: str, note: bytes, seconds: int) -> None: ...

    async def close(self) -> None: ...


class MemoryStore:
    """At most `most` bytes; those that were not asked for longest go first."""

    def __init__(self, most: int) -> None:
        self.size = 0
        self._most = most
        self._entries: OrderedDict[str, tuple[float, int, Kept | list[bytes]]] = OrderedDict()

    async def get(self, key: str) -> Kept | None:
        found = self._get(key)
        return found if isinstance(found, Kept) else None

    async def put(self, key: str, kept: Kept, seconds: int) -> None:
        self._put(key, kept, sum(map(len, kept.pieces)), seconds)

    async def notes(self, name: str) -> list[bytes]:
        found = self._get(NOTES + name)
        return found if isinstance(found, list) else []

    async def note(self, name: str, note: bytes, seconds: int) -> None:
        all_of_it = [note, *await self.notes(name)][:MOST_NOTES]
        self._put(NOTES + name, all_of_it, sum(map(len, all_of_it)), seconds)

    def _get(self, key: str) -> Kept | list[bytes] | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        ends, _, value = entry
        if ends <= time.monotonic():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return value

    def _put(self, key: str, value: Kept | list[bytes], size: int, seconds: int) -> None:
        self._drop(key)
        size += ENTRY_BYTES
        if size > self._most:
            return
        self._entries[key] = (time.monotonic() + seconds, size, value)
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
    """The server's own memory policy bounds it. A server that is away is a cache without answers, and is left alone for
    a moment, so that a server that hangs costs few requests its timeout."""

    def __init__(self, url: str, timeout: float) -> None:
        self._server = Server(url, timeout)
        self._decode = msgspec.msgpack.Decoder(Kept).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._away = False
        self._ask_at = 0.0

    async def get(self, key: str) -> Kept | None:
        found = await self._call("GET", PREFIX + key)
        try:
            return self._decode(found) if isinstance(found, bytes) else None
        except msgspec.MsgspecError:
            return None  # nobody of ours wrote that

    async def put(self, key: str, kept: Kept, seconds: int) -> None:
        await self._call("SET", PREFIX + key, self._encode(kept), "EX", seconds)

    async def notes(self, name: str) -> list[bytes]:
        found = await self._call("EVAL", _NOTED, 1, NOTES + name)
        notes, at = [], 0
        while isinstance(found, bytes) and at < len(found):
            (size,) = struct.unpack_from(">I", found, at)
            notes.append(found[at + 4 : at + 4 + size])
            at += 4 + size
        return notes

    async def note(self, name: str, note: bytes, seconds: int) -> None:
        await self._call("EVAL", _NOTE, 1, NOTES + name, note, seconds)

    async def close(self) -> None:
        await self._server.close()

    async def _call(self, *words: Word) -> Answer:
        if time.monotonic() < self._ask_at:
            return None
        try:
            answer = await self._server.call(*words)
        except (OSError, TimeoutError, ServerError) as error:
            if not self._away:
                log.warning("the server of the cache is away: %s", error or "no answer in time")
            self._away, self._ask_at = True, time.monotonic() + AWAY_SECONDS
            return None
        self._away = False
        return answer


def cache_store(where: str, timeout: float, most: int) -> Store:
    """`memory`, or the URL of a server. ValueError when it is neither."""
    if where == "memory":
        return MemoryStore(most)
    try:
        return ValkeyStore(where, timeout)
    except ValueError:
        raise ValueError(f"--cache {where!r}: it is limits, memory, or redis://host:port/0 and the like") from None
