"""The journal of one gateway: records go in on the hot path and stay until control has acknowledged them.

`append` is synchronous and never waits for a disk: what it hands to the operating system survives the death
of this process; the group commit behind it makes that survive a power cut.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from tokenworks.core.clock import Clock, SystemClock
from tokenworks.core.errors import Unavailable
from tokenworks.core.files import sync_directory
from tokenworks.journal import directory as home
from tokenworks.journal import framing, segment
from tokenworks.journal.reader import Batch, Cursor
from tokenworks.journal.records import Opened, Record, Settled
from tokenworks.journal.recovery import OpenAttempts, recover

Durability = Literal["process", "disk"]

RESERVE_BYTES = 4 * 1024 * 1024
PROBE_SECONDS = 1.0
LONGEST_ERROR = 2_000

_datasync = getattr(os, "fdatasync", os.fsync)

log = logging.getLogger(__name__)


class JournalFull(Unavailable):
    """No new request can be written down, so none is admitted; those under way are still settled."""

    code = "journal_full"


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """`durability` "disk": `commit` waits for the disk; "process": it does not, the group commit still runs.

    `disk_limit` bounds everything the journal keeps while control is away.
    """

    durability: Durability = "process"
    segment_bytes: int = 8 * 1024 * 1024
    disk_limit: int = 1024 * 1024 * 1024
    sync_seconds: float = 0.05

    def __post_init__(self) -> None:
        if self.durability not in ("process", "disk"):
            raise ValueError(f'durability {self.durability!r}: use "process" or "disk"')
        if self.segment_bytes < 1024:
            raise ValueError(f"segment_bytes {self.segment_bytes}: use at least 1024")
        if self.disk_limit < 8 * self.segment_bytes:
            raise ValueError(
                f"disk_limit {self.disk_limit}: use at least eight segments ({8 * self.segment_bytes} bytes)"
            )
        if self.sync_seconds <= 0:
            raise ValueError(f"sync_seconds {self.sync_seconds}: use more than 0")

    @property
    def reserve(self) -> int:
        return min(RESERVE_BYTES, self.disk_limit // 8)


class Journal:
    """One process, one event loop, one directory. Made by `open`, ended by `close`.

    Records are numbered from 0. `end` is the next number; records below `synced` survive a power cut,
    records below `acknowledged` are known to control. `news` is set whenever `synced` has moved.
    """

    def __init__(self, directory: Path, settings: JournalSettings, gateway_id: str, lock: int) -> None:
        self.directory = directory
        self.settings = settings
        self.gateway_id = gateway_id
        self.end = self.synced = self.acknowledged = 0
        self.news = asyncio.Event()
        self._lock = lock
        self._buffer = bytearray()
        self._cursor = Cursor()
        self._attempts = OpenAttempts()
        self._segments: list[segment.Segment] = []
        self._file = -1
        self._roll_at = 0
        self._full_files: list[int] = []
        """Descriptors of segments that are complete but not yet synced."""
        self._new_name = False
        self._used = 0
        self._reserve = home.Reserve(directory, settings.reserve)
        self._trouble = ""
        self._probe_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._syncing: asyncio.Task[None] | None = None

    @classmethod
    def open(
        cls,
        directory: Path,
        settings: JournalSettings = JournalSettings(),
        *,
        gateway_id: str | None = None,
        clock: Clock | None = None,
    ) -> "Journal":
        """Take the directory, read what is there, settle as lost what a dead gateway left open.

        JournalLocked when another process has it; ValueError when it is of another version; OSError.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = home.lock(directory)
        try:
            identity = home.save_gateway_id(directory, gateway_id) if gateway_id else home.gateway_id(directory)
            journal = cls(directory, settings, identity, lock)
            journal._start((clock or SystemClock()).now_ns())
        except BaseException:
            os.close(lock)
            raise
        return journal

    def append(self, record: Record) -> None:
        """Write a record down; after a `Settled` the operating system has it and all before it.

        JournalFull for an `Opened` that must not be admitted. Other records are never refused.
        """
        opens = type(record) is Opened
        if opens:
            self._admit()
        try:
            framing.append(self._buffer, record)
        except ValueError:
            if not isinstance(record, Settled):
                raise
            record = msgspec.structs.replace(record, error=record.error[:LONGEST_ERROR])
            framing.append(self._buffer, record)
        self._attempts.note(record)
        self.end += 1
        if type(record) is Settled:
            self.flush()
        elif self._timer is None:
            self._arm()

    def flush(self) -> None:
        """Hand everything to the operating system; call it after an `Opened`, before the attempt leaves."""
        buffer = self._buffer
        current = self._segments[-1]
        while buffer:
            try:
                written = os.write(self._file, buffer)
            except OSError as error:
                if self._give_way(error.strerror or str(error)):
                    continue
                return
            current.size += written
            self._used += written
            del buffer[:written]
        current.end = self.end
        if self._timer is None:
            self._arm()
        if current.size >= self._roll_at:
            self._roll()

    async def commit(self) -> None:
        """Until all records appended so far are as durable as the settings say. Unavailable when they cannot be."""
        self.flush()
        goal = self.end
        if self._buffer:
            raise JournalFull(f"the journal cannot be written: {self._trouble}")
        while self.settings.durability == "disk" and self.synced < goal:
            if self._probe_at == float("inf"):
                raise Unavailable(f"the journal cannot be written: {self._trouble}")
            await asyncio.shield(self._sync())

    async def close(self) -> None:
        """Sync and release the directory. Attempts still open are settled as lost at the next start."""
        if self._timer is not None:
            self._timer.cancel()
        if self._syncing is not None:
            await self._syncing
        self.flush()
        await self._sync()
        if self._timer is not None:
            self._timer.cancel()
        os.close(self._file)
        os.close(self._lock)

    @property
    def full(self) -> str:
        """Why no new attempt may be opened; "" when it may."""
        if self._trouble:
            return f"the journal in {self.directory} cannot be written: {self._trouble}"
        if self._used + len(self._buffer) > self.settings.disk_limit - self.settings.reserve:
            return f"the journal holds {self._used} bytes that control has not taken, its limit is reached"
        return ""

    @property
    def used_bytes(self) -> int:
        return self._used

    @property
    def lag(self) -> int:
        """Records that control does not have yet."""
        return self.end - self.acknowledged

    @property
    def oldest(self) -> int:
        """The lowest number that can still be read."""
        return self._segments[0].first

    def kept(self) -> Iterator[tuple[int, Record]]:
        """Every record on disk with its number; those that control has may be among them."""
        cursor, position = Cursor(), 0
        while (batch := cursor.read(self._segments, position, self.end)) is not None:
            yield from enumerate(framing.read_batch(batch.data), batch.first)
            position = batch.end

    def read(self) -> Batch | None:
        """The next records to ship: synced, not acknowledged."""
        return self._cursor.read(self._segments, self.acknowledged, self.synced)

    def acknowledge(self, position: int) -> None:
        """Control wants `position` next (also a lower one than before); segments nobody needs are deleted."""
        self.acknowledged = min(max(position, self.oldest), self.synced)
        while len(self._segments) > 1 and self.acknowledged >= self._segments[1].head:
            gone = self._segments.pop(0)
            gone.path.unlink(missing_ok=True)
            self._used -= gone.size
        try:
            home.save_position(self.directory, self.acknowledged)
        except OSError as error:
            log.warning("the journal's position cannot be saved, control may get records twice: %s", error)

    def rename(self) -> None:
        """Go on under a new id and send all again: control remembers numbers that this journal never gave."""
        self.gateway_id = home.save_gateway_id(self.directory, home.new_gateway_id())
        self.acknowledge(self.oldest)

    def _start(self, now_ns: int) -> None:
        self._segments, attempts = recover(self.directory)
        self._used = sum(found.size for found in self._segments)
        position = home.load_position(self.directory)
        self.end = max(position, self._segments[-1].end if self._segments else 0)
        if not self._reserve.make():
            self._give_way("the disk is full")
        self._begin_segment(attempts.settle_lost(now_ns))
        if self._buffer:
            raise OSError(f"the journal in {self.directory} cannot be written: {self._trouble}")
        _sync_files(self._file, [], self.directory)
        self._new_name = False
        self.synced = self.end
        self.acknowledge(position)
        if len(attempts.opened):
            log.warning(
                "journal: %d attempts were open when the last gateway died, settled as lost", len(attempts.opened)
            )

    def _roll(self) -> None:
        try:
            self._begin_segment(self._attempts.records())
        except OSError as error:
            self._give_way(error.strerror or str(error))
            self._roll_at += self.settings.segment_bytes // 8

    def _begin_segment(self, head: Sequence[Record]) -> None:
        """Go on in a new file that starts with `head`: what must outlive the files before it."""
        current, file = segment.create(self.directory, self.end)
        if self._file >= 0:
            self._full_files.append(self._file)
        self._file = file
        self._new_name = True
        self._segments.append(current)
        self._buffer += segment.header(self.end)
        for record in head:
            framing.append(self._buffer, record)
        self.end += len(head)
        current.head = self.end
        self._roll_at = len(self._buffer) + self.settings.segment_bytes
        self.flush()

    def _admit(self) -> None:
        if self._trouble and time.monotonic() >= self._probe_at:
            self._probe()
        if reason := self.full:
            raise JournalFull(f"{reason}; no new request is taken until there is room", retry_after=PROBE_SECONDS)

    def _give_way(self, reason: str) -> bool:
        """A write failed: admit nothing new. True when the reserve was there to free space for what is under way."""
        if not self._trouble:
            log.error("the journal in %s cannot be written, new requests are refused: %s", self.directory, reason)
        self._trouble = reason
        self._probe_at = max(self._probe_at, time.monotonic() + PROBE_SECONDS)
        return self._reserve.release()

    def _probe(self) -> None:
        """Is there room again, for what waits and for the reserve?"""
        self._probe_at = time.monotonic() + PROBE_SECONDS
        self.flush()
        if not self._buffer and self._reserve.make():
            log.info("the journal in %s can be written again", self.directory)
            self._trouble = ""

    def _arm(self) -> None:
        """See that a group commit follows; without an event loop (tools, tests) only `close` syncs."""
        with contextlib.suppress(RuntimeError):
            self._timer = asyncio.get_running_loop().call_later(self.settings.sync_seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.flush()
        if self.synced < self._segments[-1].end:
            self._sync()

    def _sync(self) -> "asyncio.Task[None]":
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._sync_once(), name="journal-sync")
        return self._syncing

    async def _sync_once(self) -> None:
        goal = self._segments[-1].end
        complete, self._full_files = self._full_files, []
        directory = self.directory if self._new_name else None
        self._new_name = False
        try:
            await asyncio.to_thread(_sync_files, self._file, complete, directory)
            self.synced = max(self.synced, goal)
        except OSError as error:
            # After a failed sync nobody knows what is on the disk: only a restart, which reads it, can tell.
            self._give_way(f"syncing it to disk failed: {error.strerror}; restart this gateway")
            self._probe_at = float("inf")
        finally:
            self._syncing = None
            self.news.set()
            for file in complete:
                os.close(file)


def _sync_files(current: int, complete: list[int], directory: Path | None) -> None:
    for file in (*complete, current):
        _datasync(file)
    if directory is not None:
        sync_directory(directory)
