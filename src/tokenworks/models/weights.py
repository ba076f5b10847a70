"""Entry -> path of its weights: from the cache, or downloaded, checked and placed there.

Once a file is cached, nothing here touches the network or imports a download library.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenworks.models.cache import Cache, Cached
from tokenworks.models.catalog import Entry
from tokenworks.models.errors import CacheUnusable, ChecksumMismatch, DiskFull, UnknownModel
from tokenworks.models.optimized import PREFIX
from tokenworks.models.progress import Progress, silent
from tokenworks.models.sources import Source, parse
from tokenworks.models.writer import Written, file_sha256, require_space

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fetch(entry: Entry, cache_dir: Path, progress: Progress | None = None) -> Path:
    """Raises a WeightsError; whatever was half done is either resumed by the next call or gone."""
    source = parse(entry.source)
    if (local := source.in_place()) is not None:
        if entry.sha256 is not None:
            _check(entry, Written(local, file_sha256(local), local.stat().st_size), entry.sha256)
        return local
    cache = Cache(cache_dir)
    with _storage(cache_dir):
        if (path := _cached(cache, entry)) is not None:
            return path
        with cache.downloading(entry.source):
            # Whoever held the lock before may have fetched it.
            return _cached(cache, entry) or _download(cache, entry, source, progress or silent)


def cached(cache_dir: Path) -> list[Cached]:
    with _storage(cache_dir):
        return Cache(cache_dir).all()


def remove(name: str, cache_dir: Path) -> int:
    """Remove what was pulled under this name (or from this source). Returns the bytes freed."""
    cache = Cache(cache_dir)
    with _storage(cache_dir):
        known = cache.sources()
        matches = [source for source, names in known.items() if name in (source, source.removeprefix(PREFIX), *names)]
        if not matches:
            raise UnknownModel(name, set().union(*known.values()), where=f"the cache {cache_dir}")
        return sum(cache.forget(source) for source in matches)


def _cached(cache: Cache, entry: Entry) -> Path | None:
    found = cache.find(entry.source)
    if found is not None and entry.sha256 in (None, found.sha256):
        cache.name(found, entry.name)
        return found.path
    return cache.adopt(entry.sha256, entry.source, entry.name) if entry.sha256 else None


def _download(cache: Cache, entry: Entry, source: Source, progress: Progress) -> Path:
    folder = cache.partial(entry.source)
    if entry.size is not None:
        begun = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        require_space(folder, max(0, entry.size - begun))
    try:
        written = source.download(folder, progress)
        expected = entry.sha256 or cache.pinned(entry.source)
        if expected is not None:
            _check(entry, written, expected)
    except ChecksumMismatch:
        cache.discard_partial(entry.source)
        raise
    except OSError as error:
        if error.errno in FULL:
            # A part that fills the disk would take the journal and the database down with it.
            cache.discard_partial(entry.source)
        raise
    return cache.place(written, entry.source, entry.name)


def _check(entry: Entry, written: Written, expected: str) -> None:
    if written.sha256 != expected:
        raise ChecksumMismatch(
            f"{entry.source} is not the file that {entry.name!r} pins: sha256 {written.sha256}, expected {expected}",
            "Pull again; if it stays so the publisher replaced the file: remove the model or change its pinned sha256.",
        )


@contextmanager
def _storage(cache_dir: Path) -> Iterator[None]:
    """What the operating system says about the cache folder, as an error with a remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskFull(
                f"the disk of {cache_dir} is full ({error.strerror})",
                "Free some space, or put the cache on another disk with TOKENWORKS_CACHE_DIR, then pull again.",
            ) from error
        raise CacheUnusable(
            f"the cache {cache_dir} cannot be used: {error}", "Make it writable or set TOKENWORKS_CACHE_DIR."
        ) from error
