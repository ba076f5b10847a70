"""Objects as files under one directory, which belongs to one process."""

import asyncio
import contextlib
import hashlib
import os
import secrets
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import BinaryIO

from tokenworks.control.objects.store import CHUNK, ObjectDamaged, ObjectMissing, Stored, StoreError
from tokenworks.core.files import sync_directory

WRITE_BYTES = 1024 * 1024
UNFINISHED = ".part"


class DirectoryStore:
    def __init__(self, root: Path) -> None:
        """Removes what a dead process left half written."""
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in root.rglob(f"*{UNFINISHED}"):
            path.unlink(missing_ok=True)

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:
        path = self._path(key)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with temporary.open("xb", buffering=0) as file:
                stored = await _write(file, chunks)
            await asyncio.to_thread(_publish, temporary, path)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return stored

    async def get(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        path = self._path(key)
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                left = length
                while left is None or left > 0:
                    chunk = await asyncio.to_thread(file.read, CHUNK if left is None else min(CHUNK, left))
                    if not chunk:
                        break
                    left = None if left is None else left - len(chunk)
                    yield chunk
        except FileNotFoundError as error:
            raise ObjectMissing(f"{path} is not there") from error
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}") from error
        if left:
            raise ObjectDamaged(f"{path} ends {left} bytes too early")

    async def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        except OSError as error:
            raise StoreError(f"{path} cannot be removed: {error.strerror}") from error

    async def close(self) -> None:
        pass

    def _path(self, key: str) -> Path:
        path = self._root / key
        if not path.is_relative_to(self._root) or ".." in path.parts:
            raise ValueError(f"{key!r} is no key of an object")
        return path


async def _write(file: BinaryIO, chunks: AsyncIterable[bytes]) -> Stored:
    digest, size, buffer = hashlib.sha256(), 0, bytearray()
    async for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        buffer += chunk
        if len(buffer) >= WRITE_BYTES:
            await asyncio.to_thread(_write_all, file, bytes(buffer))
            buffer.clear()
    await asyncio.to_thread(_write_all, file, bytes(buffer))
    await asyncio.to_thread(os.fsync, file.fileno())
    return Stored(size, digest.hexdigest())


def _write_all(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _publish(temporary: Path, path: Path) -> None:
    temporary.rename(path)
    sync_directory(path.parent)
