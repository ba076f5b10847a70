"""The interface of an object store. Objects are written whole or not at all, and are never changed afterwards."""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

CHUNK = 256 * 1024
"""Bytes handed on at a time: no object is ever in memory whole."""


class StoreError(Exception):
    """The store cannot be used now. The message is for the log."""


class ObjectMissing(StoreError):
    pass


class ObjectDamaged(StoreError):
    """What was read is not what was written."""


@dataclass(frozen=True, slots=True)
class Stored:
    """`sha256` in hex, of the whole object."""

    size: int
    sha256: str


class ObjectStore(Protocol):
    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:
        """Replaces an object of the same key. When `chunks` fails there is no object, and its exception goes on."""
        ...

    def get(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Its bytes from `start`, in pieces. ObjectMissing, or ObjectDamaged when it ends before `length`."""
        ...

    async def delete(self, key: str) -> None:
        """Deleting what is not there changes nothing."""
        ...

    async def close(self) -> None: ...
