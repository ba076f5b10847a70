"""What survives when a gateway dies: any interleaving in one process, and a real process killed."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.journal.framing import read_batch
from tokenworks.journal.records import Opened, Progress, Record, Settled, UsageRecord
from tokenworks.journal.writer import Journal, JournalSettings

SMALL = JournalSettings(segment_bytes=1024, disk_limit=1024 * 1024, sync_seconds=60)
_action = st.sampled_from(["open", "open", "progress", "settle", "settle", "many", "ship", "crash"])


class Life:
    """A journal that is used, shipped and killed, next to what its gateway knows to have happened."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = Journal.open(directory, SMALL)
        self.numbers = 0
        self.open: dict[str, UsageRecord] = {}
        self.expected: dict[str, tuple[str, UsageRecord]] = {}
        self.control: dict[str, Settled] = {}
        self.opened_at_control: set[str] = set()

    async def act(self, action: str, choice: random.Random) -> None:
        if action == "open":
            self.numbers += 1
            name = f"r{self.numbers}"
            self.journal.append(Opened(name, 1, 0, "k", "p", "o", "x", "m", "u", "v", "m"))
            self.open[name] = UsageRecord()
        elif action == "many":
            for _ in range(10):
                await self.act("open", choice)
                await self.act("settle", choice)
        elif action == "ship":
            await self.ship(choice.randrange(1, 4))
        elif action == "crash":
            self.crash()
        elif self.open:
            name = choice.choice(list(self.open))
            usage = UsageRecord(output=self.open[name].output + 1)
            if action == "progress":
                self.journal.append(Progress(name, 1, usage))
                self.open[name] = usage
            else:
                del self.open[name]
                self.journal.append(Settled(name, 1, 0, "completed", usage))
                self.expected[name] = ("completed", usage)

    def crash(self) -> None:
        """What the operating system has is all that is left; the lock goes with the process."""
        self.journal.flush()
        self.abandon()
        self.expected |= {name: ("lost", usage) for name, usage in self.open.items()}
        self.open.clear()
        self.journal = Journal.open(self.directory, SMALL)

    def abandon(self) -> None:
        if self.journal._timer is not None:
            self.journal._timer.cancel()
        for file in (self.journal._lock, self.journal._file, *self.journal._full_files):
            os.close(file)

    async def ship(self, batches: int) -> None:
        self.journal.flush()
        await self.journal._sync()
        for _ in range(batches):
            if (batch := self.journal.read()) is None:
                return
            for record in read_batch(batch.data):
                self.take(record)
            self.journal.acknowledge(batch.end)

    def take(self, record: Record) -> None:
        if isinstance(record, Opened):
            self.opened_at_control.add(record.request_id)
        elif isinstance(record, Settled):
            assert record.request_id not in self.control, "settled twice"
            assert record.request_id in self.opened_at_control, "settled before it was opened"
            self.control[record.request_id] = record


@settings(max_examples=150, deadline=None)
@given(st.lists(_action, max_size=40), st.randoms(use_true_random=False))
def test_every_attempt_is_settled_once_whatever_happens(
    memory: Path, actions: list[str], choice: random.Random
) -> None:
    async def run(directory: Path) -> None:
        life = Life(directory)
        for action in actions:
            await life.act(action, choice)
        life.crash()
        await life.ship(1_000_000)
        assert {name: (record.outcome, record.usage) for name, record in life.control.items()} == life.expected
        assert len(life.opened_at_control) == life.numbers
        assert len(list(directory.glob("*.journal"))) == 1
        await life.journal.close()

    with tempfile.TemporaryDirectory(dir=memory) as directory:
        asyncio.run(run(Path(directory)))


APPENDER = """
import os, sys
from pathlib import Path
from tokenworks.journal.records import Opened, Settled, UsageRecord
from tokenworks.journal.writer import Journal, JournalSettings

journal = Journal.open(Path(sys.argv[1]), JournalSettings(segment_bytes=16_384))
number = 0
while True:
    name = f"{sys.argv[2]}-{number}"
    journal.append(Opened(name, 1, 0, "k", "p", "o", "x", "m", "u", "v", "m"))
    journal.append(Settled(name, 1, 0, "completed", UsageRecord(output=number)))
    os.write(1, b"%d\\n" % number)
    number += 1
"""


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.3])
def test_kill_9_loses_no_record_whose_append_returned(tmp_path: Path, seconds: float) -> None:
    answered: set[str] = set()
    for life in range(2):
        child = subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path), str(life)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        drained = time.monotonic() + seconds
        while time.monotonic() < drained:
            lines.append(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines(keepends=True)
        child.stdout.close()
        assert child.wait(30) == -signal.SIGKILL
        answered |= {f"{life}-{int(line)}" for line in lines if line.endswith(b"\n")}

    async def read_all() -> list[Record]:
        journal = Journal.open(tmp_path)
        records: list[Record] = []
        while (batch := journal.read()) is not None:
            records += read_batch(batch.data)
            journal.acknowledge(batch.end)
        await journal.close()
        return records

    settled = [record for record in asyncio.run(read_all()) if isinstance(record, Settled)]
    completed = [record.request_id for record in settled if record.outcome == "completed"]
    assert len(answered) > 10
    assert answered <= set(completed)
    assert len(completed) == len(set(completed))
    assert len(completed) <= len(answered) + 2, "at most the record under way at each kill is there unanswered"
