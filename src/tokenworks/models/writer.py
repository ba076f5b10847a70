"""One weights file being written: hashed, counted and reported while its bytes pass."""

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tokenworks.models.errors import DiskFull
from tokenworks.models.progress import Progress

CHUNK = 1 << 20
# Free space that a download must leave: a machine with a full disk can keep neither journal nor database.
RESERVE = 64 << 20


@dataclass(frozen=True)
class Written:
    """A whole file, not yet checked against anything."""

    path: Path
    sha256: str
    size: int


def require_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size + RESERVE:
        raise DiskFull(
            f"{folder} has {free / 1e6:,.0f} MB free, {(size + RESERVE) / 1e6:,.0f} MB are needed",
            "Free some space, or put the cache on another disk with TOKENWORKS_CACHE_DIR.",
        )


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class WeightsWriter:
    """Goes on after what `path` holds already. Has the four methods of a file that a downloader needs."""

    def __init__(self, path: Path, total: int | None, progress: Progress) -> None:
        self.path = path
        self._total = total
        self._progress = progress
        self._hash = hashlib.sha256()
        self._file = path.open("r+b" if path.exists() else "w+b")
        while chunk := self._file.read(CHUNK):
            self._hash.update(chunk)
        self._progress(self.tell(), total)

    def __enter__(self) -> "WeightsWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._hash.update(data)
        self._progress(self.tell(), self._total)
        return len(data)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int) -> int:
        """Only back to the start: a server that knows no ranges sends the file anew."""
        if offset:
            raise ValueError(f"weights are written in one go, not from offset {offset}")
        self._hash = hashlib.sha256()
        return self._file.seek(0)

    def truncate(self) -> int:
        return self._file.truncate()

    def finish(self) -> Written:
        """On disk for good before anybody is told that it is there."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return Written(self.path, self._hash.hexdigest(), self.tell())
