"""Keys and values on disk: files that outlive memory and the process. What was computed once is read instead.

A thread writes behind the engine's back; the engine's thread reads. Each file says what it is (of which weights, whose,
of which tokens) and carries a checksum of all that; whatever does not match is removed, never used. It holds the tokens
of prompts: the folder is the operator's own, mode 0700, and files are forgotten when they were not used for a while.
"""

import contextlib
import fcntl
import hashlib
import itertools
import logging
import os
import queue
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from tokenworks.worker.engines.llama.cells import Bytes, Cells, Layout
from tokenworks.worker.engines.llama.options import DiskPlan
from tokenworks.worker.engines.llama.scheduling.prefixes import Node, Prefixes
from tokenworks.worker.engines.llama.scheduling.sequence import Key

SUFFIX = ".kv"
LOCK = "lock"
VERSION = 1
MOST_PENDING = 256 << 20
"""Bytes that may be on their way: they are memory beside the cache's."""
_HEAD = struct.Struct("<4sII")
"""Magic, bytes of the label, bytes of the checksum after it."""
MAGIC = b"TWKV"
CHECKSUM = 16
log = logging.getLogger(__name__)


class Label(msgspec.Struct, frozen=True):
    """`tokens`: all from the beginning; the file's own come after `depth`. `rows`: bytes of a token in each plane."""

    version: int
    weights: str
    key: Key
    depth: int
    tokens: list[int]
    rows: list[int]


class File:
    """`users`: parts in use. `ready` and `lost` only ever become true; the writing thread sets them."""

    __slots__ = ("label", "lost", "path", "ready", "size", "users")

    def __init__(self, path: Path, label: Label, size: int, *, ready: bool) -> None:
        self.path = path
        self.label = label
        self.size = size
        self.users = 0
        self.ready = ready
        self.lost = False


class Part:
    """Tokens `begin` to `end` of a file."""

    __slots__ = ("_begin", "_disk", "_end", "_file")

    def __init__(self, disk: "Disk", file: File, begin: int, end: int) -> None:
        file.users += 1
        self._disk, self._file, self._begin, self._end = disk, file, begin, end

    @property
    def ready(self) -> bool:
        return self._file.ready

    @property
    def lost(self) -> bool:
        return self._file.lost

    def part(self, begin: int, end: int) -> "Part":
        return Part(self._disk, self._file, self._begin + begin, self._begin + end)

    def read(self) -> Cells | None:
        whole = self._disk.read(self._file)
        return whole and (whole if len(whole) == self._end - self._begin else whole.part(self._begin, self._end))

    def let_go(self) -> None:
        self._file.users -= 1
        if not self._file.users:
            self._disk.remove(self._file)


class Disk:
    """`limit`: bytes of files. `weights`: what the weights are known by; others' files are removed. `keep`: seconds."""

    def __init__(self, folder: Path, limit: int, weights: str, layout: Layout, keep: float) -> None:
        self.limit = limit
        self.used = 0
        self.tokens_read = 0
        self._folder, self._held = _own_folder(folder)
        self._weights = weights
        self._rows = [size for _, size in layout.rows]
        self._keep = keep
        self._files: OrderedDict[Path, File] = OrderedDict()
        """The one used longest ago comes first."""
        self._pending = 0
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[tuple[File, Cells | None] | None] = queue.SimpleQueue()
        self._number = time.time_ns()
        self._thread = threading.Thread(target=self._run, name="disk", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """After what is on its way was written."""
        if self._thread.is_alive():
            self._work.put(None)
            self._thread.join()
            os.close(self._held)

    def bring_back(self, prefixes: Prefixes) -> None:
        """What earlier processes wrote is in the tree again; what hangs on nothing is removed."""
        for key, tokens, depth, part in self.found():
            prefixes.adopt(key, tokens, depth, part)
            part.let_go()
        self._fit(0)

    def found(self) -> Iterator[tuple[Key, list[int], int, Part]]:
        """What earlier processes left, parents before children. Whoever takes a part uses it, or lets it go."""
        files = []
        for path in self._folder.iterdir():
            label = None if path.suffix != SUFFIX else self._label(path)
            if path.name == LOCK:
                continue
            if label is None:
                path.unlink(missing_ok=True)
            else:
                files.append((path.stat(), path, label))
        files.sort(key=lambda one: one[0].st_mtime)
        for status, path, label in files:
            file = self._files[path] = File(path, label, status.st_size, ready=True)
            self.used += file.size
        for file in sorted(self._files.values(), key=lambda one: one.label.depth):
            label = file.label
            yield label.key, label.tokens, label.depth, Part(self, file, 0, len(label.tokens) - label.depth)

    def write(self, node: Node, tokens: list[int]) -> Part | None:
        cells = node.stored
        if not isinstance(cells, Cells) or self._pending + cells.size > MOST_PENDING or cells.size > self.limit:
            return None
        label = Label(VERSION, self._weights, node.key, node.depth, tokens, self._rows)
        self._number += 1
        file = File(self._folder / f"{self._number:x}{SUFFIX}", label, cells.size, ready=False)
        self._fit(cells.size)
        self._files[file.path] = file
        self.used += file.size
        with self._lock:
            self._pending += cells.size
        self._work.put((file, cells))
        return Part(self, file, 0, len(cells))

    def read(self, file: File) -> Cells | None:
        """None when it is not what was written; it is removed then."""
        if file.lost or not file.ready:
            return None
        try:
            data = np.fromfile(file.path, np.uint8)
            label, begin = _opened(data)
            planes, count = [], len(label.tokens) - label.depth
            for size in label.rows:
                planes.append(data[begin : begin + count * size].reshape(count, size))
                begin += count * size
            if label == file.label and begin == len(data):
                self._touch(file)
                self.tokens_read += count
                return Cells(planes)
            log.warning("%s does not hold what it was written for: removed", file.path)
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read: %s: removed", file.path, error)
        self.remove(file)
        return None

    def remove(self, file: File) -> None:
        if self._files.pop(file.path, None) is not None:
            self.used -= file.size
            file.lost = True
            self._work.put((file, None))

    def _touch(self, file: File) -> None:
        self._files.move_to_end(file.path)
        with contextlib.suppress(OSError):
            os.utime(file.path)

    def _fit(self, size: int) -> None:
        while self._files and self.used + size > self.limit:
            self.remove(next(iter(self._files.values())))

    def _label(self, path: Path) -> Label | None:
        """None for what this process has no use for. The checksum is looked at when the file is read."""
        try:
            if path.stat().st_mtime < time.time() - self._keep:
                return None
            with path.open("rb") as file:
                magic, size, _ = _HEAD.unpack(file.read(_HEAD.size))
                label = msgspec.msgpack.decode(file.read(size), type=Label) if magic == MAGIC else None
        except (OSError, struct.error, msgspec.DecodeError):
            return None
        wanted = label is not None and (label.version, label.weights, label.rows) == (
            VERSION,
            self._weights,
            self._rows,
        )
        return label if wanted else None

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            file, cells = work
            try:
                if cells is None:
                    file.path.unlink(missing_ok=True)
                elif not file.lost:
                    _write(file, cells)
                    file.ready = True
            except OSError as error:
                file.lost = True
                log.warning("keys and values cannot be written: %s", error)
            if cells is not None:
                with self._lock:
                    self._pending -= cells.size


def open_disk(plan: DiskPlan | None, layout: Layout | None) -> Disk | None:
    """None when it is not wanted, or these keys and values cannot be cut. OSError when the folder cannot be used."""
    if plan is None or layout is None:
        return None
    return Disk(Path(plan.folder).expanduser(), plan.limit, plan.weights, layout, plan.keep)


def _own_folder(folder: Path) -> tuple[Path, int]:
    """The first numbered folder in it that no other process uses, and the lock on it: replicas do not share files."""
    for number in itertools.count():
        own = folder / str(number)
        own.mkdir(parents=True, exist_ok=True, mode=0o700)
        held = os.open(own / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            continue
        return own, held
    raise AssertionError


def _write(file: File, cells: Cells) -> None:
    label = msgspec.msgpack.encode(file.label)
    checksum = hashlib.blake2b(label, digest_size=CHECKSUM)
    for plane in cells.planes:
        checksum.update(plane.data)
    unfinished = file.path.with_suffix(".new")
    with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out:
        out.write(_HEAD.pack(MAGIC, len(label), CHECKSUM) + label + checksum.digest())
        for plane in cells.planes:
            out.write(plane.data)
    unfinished.replace(file.path)


def _opened(data: Bytes) -> tuple[Label, int]:
    """(label, where the planes begin). ValueError when a bit differs from what was written."""
    if len(data) < _HEAD.size:
        raise ValueError("it ends early")
    magic, size, digest = _HEAD.unpack(data[: _HEAD.size].tobytes())
    begin = _HEAD.size + size
    label = data[_HEAD.size : begin].tobytes()
    said = data[begin : begin + digest].tobytes()
    begin += digest
    checksum = hashlib.blake2b(label, digest_size=CHECKSUM)
    checksum.update(data[begin:].data)
    if magic != MAGIC or checksum.digest() != said:
        raise ValueError("its checksum differs")
    return msgspec.msgpack.decode(label, type=Label), begin
