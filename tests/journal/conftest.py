"""Records by number, and what a directory really holds."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tokenworks.journal import segment
from tokenworks.journal.records import Opened, Progress, Record, Settled, UsageRecord


class Make:
    @staticmethod
    def opened(number: int, attempt: int = 1) -> Opened:
        return Opened(
            f"req_{number}", attempt, number, "key", "proj", "org", "openai_chat", "m", "up", "p", "m-1", True
        )

    @staticmethod
    def progress(number: int, output: int) -> Progress:
        return Progress(f"req_{number}", 1, UsageRecord(input=7, output=output), charge=output)

    @staticmethod
    def settled(number: int, attempt: int = 1) -> Settled:
        return Settled(f"req_{number}", attempt, number, "completed", UsageRecord(input=7, output=99), charge=99)


@pytest.fixture
def make() -> type[Make]:
    return Make


@pytest.fixture
def on_disk() -> Callable[[Path], list[Record]]:
    """All records that a reader finds in the files at this moment."""

    def read(directory: Path) -> list[Record]:
        records: list[Record] = []
        for path in sorted(directory.glob("*.journal")):
            segment.load(path, records.append)
        return records

    return read


@pytest.fixture(scope="session")
def memory() -> Iterator[Path]:
    """A directory in memory where the system has one, for tests with hundreds of syncs that prove nothing there."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as directory:
        yield Path(directory)
