"""A copy of weights in a format that this machine computes faster, kept in the cache and used instead of them.

It belongs to one exact file: when the original changes, it is not used any more.
"""

import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tokenworks.core.files import write_atomically
from tokenworks.models.cache import BLOBS, Cache, Origin
from tokenworks.models.catalog import Entry
from tokenworks.models.writer import Written, file_sha256, require_space

PREFIX = "optimized:"
MOST_LOSS = 0.03
"""By how much perplexity may rise unless somebody says otherwise."""


class Figures(msgspec.Struct, frozen=True):
    """Tokens per second of a prompt, of one answer and of many at once; perplexity on a fixed text, 0 where it was not
    asked for."""

    prefill: float
    decode: float
    many: float
    perplexity: float


@dataclass(frozen=True)
class Optimized:
    path: Path
    format: str


def find(entry: Entry, original: Path, cache_dir: Path) -> Optimized | None:
    """None also when it was made of another file than `original`."""
    cached = Cache(cache_dir).find(PREFIX + entry.source)
    if cached is None or cached.origin is None or cached.origin.identity != _identity(original):
        return None
    return Optimized(cached.path, cached.origin.format)


def is_copy(entry: Entry, path: Path, cache_dir: Path) -> bool:
    cached = Cache(cache_dir).find(PREFIX + entry.source)
    return cached is not None and cached.path == path


def making(entry: Entry, cache_dir: Path) -> AbstractContextManager[None]:
    """Held while a copy is made: each model is measured by one process of a machine at a time."""
    return Cache(cache_dir).downloading(PREFIX + entry.source)


def decided(entry: Entry, original: Path, cache_dir: Path) -> bool:
    """Whether it was measured here: there is a copy, or none is better."""
    try:
        best = _note(entry, cache_dir).read_text() == _identity(original)
    except OSError:
        best = False
    return best or find(entry, original, cache_dir) is not None


def keep_original(entry: Entry, original: Path, cache_dir: Path) -> None:
    """No copy is better, and that is remembered until the original changes."""
    undo(entry, cache_dir)
    note = _note(entry, cache_dir)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(note, _identity(original).encode(), mode=0o644)


def place(entry: Entry, original: Path, made: Path, format: str, cache_dir: Path) -> Path:
    """`made` is in `workplace()` and is moved from there."""
    written = Written(made, file_sha256(made), made.stat().st_size)
    origin = Origin(_identity(original), format)
    return Cache(cache_dir).place(written, PREFIX + entry.source, entry.name, origin)


def workplace(entry: Entry, cache_dir: Path, size: int) -> Path:
    """An empty folder with room for `size` bytes. DiskFull."""
    cache = Cache(cache_dir)
    cache.discard_partial(PREFIX + entry.source)
    folder = cache.partial(PREFIX + entry.source)
    require_space(folder, size)
    return folder


def discard_work(entry: Entry, cache_dir: Path) -> None:
    Cache(cache_dir).discard_partial(PREFIX + entry.source)


def undo(entry: Entry, cache_dir: Path) -> int:
    """Bytes freed; 0 when there is none."""
    _note(entry, cache_dir).unlink(missing_ok=True)
    cache = Cache(cache_dir)
    return cache.forget(PREFIX + entry.source) if PREFIX + entry.source in cache.sources() else 0


def _note(entry: Entry, cache_dir: Path) -> Path:
    return cache_dir.expanduser() / "measured" / hashlib.sha256(entry.source.encode()).hexdigest()


def _identity(path: Path) -> str:
    """A cached file is its digest; one that is used where it lies is known by size and time, not read through."""
    if path.parent.parts[-len(BLOBS) :] == BLOBS:
        return path.name
    status = path.stat()
    return f"{status.st_size} bytes of {status.st_mtime_ns}"
