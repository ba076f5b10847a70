"""The cache of weights, shared by every process of a machine.

    blobs/sha256/<digest>      whole files, read-only, placed atomically: what is there is complete
    index.json                 source -> digest, size, the names it was pulled under
    partial/<source>/          downloads under way or broken off
    measured/                  weights of which no copy is faster here, see optimized.py
    locks/                     one per source, so that a file is downloaded once however many processes want it

Knows nothing of where files come from.
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tokenworks.core.files import sync_directory, write_atomically
from tokenworks.models.errors import CacheUnusable
from tokenworks.models.writer import Written

BLOBS = ("blobs", "sha256")


class Origin(msgspec.Struct, frozen=True):
    """What a file that was made here was made of, see optimized.py."""

    identity: str
    format: str


@dataclass(frozen=True)
class Cached:
    """One source's file in the cache; `names` are the models it was pulled for."""

    source: str
    names: tuple[str, ...]
    path: Path
    size: int
    sha256: str
    origin: Origin | None = None


class _Record(msgspec.Struct, frozen=True, omit_defaults=True):
    sha256: str
    size: int
    names: list[str]
    origin: Origin | None = None


class _Index(msgspec.Struct, frozen=True):
    version: int
    weights: dict[str, _Record]


class Cache:
    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()
        self._index_file = self._root / "index.json"

    def find(self, source: str) -> Cached | None:
        """None also when the file is gone or was cut short: then it has to be fetched again."""
        record = self._records().get(source)
        if record is None:
            return None
        path = self._blob(record.sha256)
        if not path.is_file() or path.stat().st_size != record.size:
            return None
        return Cached(source, tuple(record.names), path, record.size, record.sha256, record.origin)

    def pinned(self, source: str) -> str | None:
        """The digest of the first download, in force until the source is forgotten, also when its file is lost."""
        record = self._records().get(source)
        return None if record is None else record.sha256

    def sources(self) -> dict[str, set[str]]:
        """Every source remembered, with the names it was pulled under, whether its file is still there or not."""
        return {source: set(record.names) for source, record in self._records().items()}

    def all(self) -> list[Cached]:
        found = (self.find(source) for source in sorted(self._records()))
        return [cached for cached in found if cached is not None]

    def adopt(self, digest: str, source: str, name: str) -> Path | None:
        """The file with this digest when another source brought it already."""
        for other, record in self._records().items():
            if record.sha256 == digest and (found := self.find(other)) is not None:
                self._record(source, name, digest, found.size)
                return found.path
        return None

    def place(self, written: Written, source: str, name: str, origin: Origin | None = None) -> Path:
        blob = self._blob(written.sha256)
        blob.parent.mkdir(parents=True, exist_ok=True)
        written.path.chmod(0o444)
        written.path.replace(blob)
        sync_directory(blob.parent)
        self._record(source, name, written.sha256, written.size, origin)
        shutil.rmtree(self.partial(source))
        return blob

    def name(self, cached: Cached, name: str) -> None:
        """Remember that `name` uses this file too."""
        if name not in cached.names:
            self._record(cached.source, name, cached.sha256, cached.size, cached.origin)

    def forget(self, source: str) -> int:
        """Drop the source, and its file when no other source has the same. Returns the bytes freed."""
        with self._lock("index"):
            records = self._records()
            record = records.pop(source)
            self._write(records)
            return self._remove_unused(record.sha256, records)

    def partial(self, source: str) -> Path:
        folder = self._root / "partial" / _slug(source)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard_partial(self, source: str) -> None:
        shutil.rmtree(self.partial(source), ignore_errors=True)

    def downloading(self, source: str) -> AbstractContextManager[None]:
        """Held while a source is downloaded; freed by the system when its holder dies."""
        return self._lock(_slug(source))

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        # Imported here because it costs as long as the whole look-up of a cached file.
        from filelock import FileLock

        folder = self._root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock", poll_interval=0.2):
            yield

    def _blob(self, digest: str) -> Path:
        return self._root.joinpath(*BLOBS, digest)

    def _record(self, source: str, name: str, digest: str, size: int, origin: Origin | None = None) -> None:
        with self._lock("index"):
            records = self._records()
            before = records.get(source)
            names = {name, *(before.names if before else ())}
            records[source] = _Record(digest, size, sorted(names), origin)
            self._write(records)
            if before:
                self._remove_unused(before.sha256, records)

    def _remove_unused(self, digest: str, records: dict[str, _Record]) -> int:
        blob = self._blob(digest)
        if any(record.sha256 == digest for record in records.values()) or not blob.is_file():
            return 0
        size = blob.stat().st_size
        blob.unlink()
        return size

    def _write(self, records: dict[str, _Record]) -> None:
        text = msgspec.json.format(msgspec.json.encode(_Index(1, records)))
        write_atomically(self._index_file, text, mode=0o644)

    def _records(self) -> dict[str, _Record]:
        try:
            return msgspec.json.decode(self._index_file.read_bytes(), type=_Index).weights
        except FileNotFoundError:
            return {}
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CacheUnusable(
                f"{self._index_file} is damaged: {error}", "Remove that file; weights are then fetched again."
            ) from error


def _slug(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()[:24]
