import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tokenworks.journal import segment, writer
from tokenworks.journal.directory import JournalLocked
from tokenworks.journal.framing import FrameError, read_batch
from tokenworks.journal.records import Record, Settled
from tokenworks.journal.writer import Journal, JournalFull, JournalSettings

SMALL = JournalSettings(segment_bytes=1024, disk_limit=64 * 1024, sync_seconds=0.01)
OnDisk = Callable[[Path], list[Record]]


def take_all(journal: Journal) -> list[Record]:
    """Do as a shipper whose control takes everything."""
    taken: list[Record] = []
    while (batch := journal.read()) is not None:
        records = read_batch(batch.data)
        assert len(records) == batch.count
        taken += records
        journal.acknowledge(batch.end)
    return taken


def test_a_settled_record_is_with_the_system_when_append_returns(tmp_path: Path, make, on_disk: OnDisk) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        journal = Journal.open(tmp_path)
        journal.append(make.opened(1))
        assert on_disk(tmp_path) == []
        journal.flush()
        assert on_disk(tmp_path) == [make.opened(1)]
        journal.append(make.progress(1, 3))
        journal.append(make.settled(1))
        assert on_disk(tmp_path) == [make.opened(1), make.progress(1, 3), make.settled(1)]
        assert journal.end == 3
        await journal.close()

    asyncio.run(run())


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_commits_share_syncs(
    tmp_path: Path, make, durability: writer.Durability, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    syncs: list[int] = []
    real = writer._datasync
    monkeypatch.setattr(writer, "_datasync", lambda file: (syncs.append(file), real(file)))

    async def request(journal: Journal, number: int) -> None:
        journal.append(make.opened(number))
        journal.append(make.settled(number))
        await journal.commit()
        if durability == "disk":
            assert journal.synced >= 2 * number

    async def run() -> None:
        journal = Journal.open(tmp_path, JournalSettings(durability=durability, sync_seconds=60))
        syncs.clear()
        await asyncio.gather(*[request(journal, number) for number in range(1, 101)])
        assert len(syncs) == (0 if durability == "process" else 1)
        await journal.close()

    asyncio.run(run())


def test_the_group_commit_comes_by_itself(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        journal = Journal.open(tmp_path, SMALL)
        journal.append(make.opened(1))
        async with asyncio.timeout(20):
            while journal.synced < 1:
                journal.news.clear()
                await journal.news.wait()
        assert take_all(journal) == [make.opened(1)]
        await journal.close()

    asyncio.run(run())


def test_only_synced_records_are_given_out(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        journal = Journal.open(tmp_path, JournalSettings(durability="disk", sync_seconds=60))
        journal.append(make.settled(1))
        assert journal.read() is None
        await journal.commit()
        assert take_all(journal) == [make.settled(1)]
        await journal.close()

    asyncio.run(run())


def test_acknowledged_segments_go_and_open_attempts_stay(tmp_path: Path, make, on_disk: OnDisk) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        journal = Journal.open(tmp_path, SMALL)
        journal.append(make.opened(0))
        journal.append(make.progress(0, 5))
        for number in range(1, 100):
            journal.append(make.opened(number))
            journal.append(make.settled(number))
        await journal.close()
        taken = take_all(journal)
        assert [record for record in taken if isinstance(record, Settled)] == [make.settled(n) for n in range(1, 100)]
        assert len(list(tmp_path.glob("*.journal"))) == 1
        assert journal.used_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.journal"))
        assert make.opened(0) in on_disk(tmp_path), "carried to the newest segment"
        journal = Journal.open(tmp_path, SMALL)
        (lost,) = take_all(journal)
        assert isinstance(lost, Settled)
        assert (lost.request_id, lost.outcome, lost.usage, lost.charge) == (
            "req_0",
            "lost",
            make.progress(0, 5).usage,
            5,
        )
        await journal.close()

    asyncio.run(run())


def test_numbers_and_position_go_on_after_a_restart(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        ids = set()
        for start in range(5):
            journal = Journal.open(tmp_path)
            ids.add(journal.gateway_id)
            assert (journal.end, journal.acknowledged) == (2 * start, max(0, 2 * start - 1))
            journal.append(make.settled(start))
            journal.append(make.settled(start))
            await journal.close()
            taken = take_all(journal)
            assert len(taken) == (2 if start == 0 else 3)
            journal.acknowledge(journal.end - 1)
        assert len(ids) == 1

    asyncio.run(run())


def test_a_file_cut_at_every_byte_opens_with_a_prefix(memory: Path, make) -> None:  # type: ignore[no-untyped-def]
    records = [make.settled(1), make.settled(2), make.settled(3)]

    async def run() -> None:
        journal = Journal.open(memory / "whole")
        for record in records:
            journal.append(record)
        await journal.close()
        (path,) = (memory / "whole").glob("*.journal")
        whole = path.read_bytes()
        for cut in range(len(whole) + 1):
            directory = memory / str(cut)
            directory.mkdir()
            (directory / path.name).write_bytes(whole[:cut])
            journal = Journal.open(directory, SMALL)
            kept = journal.end
            journal.append(make.settled(9))
            await journal.close()
            assert take_all(journal) == [*records[:kept], make.settled(9)]
            journal = Journal.open(directory, SMALL)
            assert journal.end == kept + 1
            await journal.close()

    asyncio.run(run())


def test_damage_in_the_middle_costs_only_what_is_damaged(
    tmp_path: Path, make, caplog: pytest.LogCaptureFixture
) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        journal = Journal.open(tmp_path, SMALL)
        for number in range(100):
            journal.append(make.settled(number))
        await journal.close()
        first, second, *_ = sorted(tmp_path.glob("*.journal"))
        data = bytearray(second.read_bytes())
        data[len(data) // 2] ^= 1
        second.write_bytes(data)
        first.write_bytes(b"no header at all, " * 10)
        journal = Journal.open(tmp_path, SMALL)
        assert journal.end == 100
        kept = [int(record.request_id[4:]) for record in take_all(journal)]
        assert kept == sorted(kept)
        assert kept[-1] == 99
        assert 70 < len(kept) < 100
        await journal.close()
        assert first.with_suffix(".damaged").exists()
        assert "is kept as" in caplog.text
        assert "are lost" in caplog.text

    asyncio.run(run())


def test_a_journal_of_another_version_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        journal = Journal.open(tmp_path)
        journal.append(make.settled(1))
        await journal.close()
        monkeypatch.setattr(segment, "VERSION", 2)
        with pytest.raises(FrameError, match="version 1"):
            Journal.open(tmp_path)
        monkeypatch.undo()
        await Journal.open(tmp_path).close()

    asyncio.run(run())


def test_two_cannot_have_one_journal(tmp_path: Path) -> None:
    async def run() -> None:
        journal = Journal.open(tmp_path)
        with pytest.raises(JournalLocked, match=f"in use by process {os.getpid()}"):
            Journal.open(tmp_path)
        await journal.close()
        await Journal.open(tmp_path).close()

    asyncio.run(run())


def test_the_limit_refuses_new_attempts_and_settles_the_old(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        journal = Journal.open(tmp_path, SMALL)
        admitted = 0
        with pytest.raises(JournalFull) as caught:
            while admitted < 10_000:
                journal.append(make.opened(admitted))
                admitted += 1
        assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "journal_full", 1.0)
        assert "control has not taken" in caught.value.message
        for number in range(admitted):
            journal.append(make.settled(number))
        await journal.commit()
        await journal.close()
        taken = take_all(journal)
        assert {record.request_id for record in taken if isinstance(record, Settled)} == {
            f"req_{n}" for n in range(admitted)
        }
        assert journal.full == ""

    asyncio.run(run())


class SmallDisk:
    """`os.write` of a file system with `capacity` bytes: writes what fits, then says ENOSPC."""

    def __init__(self, directory: Path, capacity: int) -> None:
        self.directory = directory
        self.capacity = capacity
        self.write = os.write

    def __call__(self, file: int, data: bytes) -> int:
        room = self.capacity - sum(path.stat().st_size for path in self.directory.iterdir())
        if room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.write(file, bytes(data[:room]))


def test_a_full_disk_loses_nothing(tmp_path: Path, make, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        journal = Journal.open(tmp_path, SMALL)
        disk = SmallDisk(tmp_path, 20_000)
        monkeypatch.setattr(os, "write", disk)
        admitted = 0
        with pytest.raises(JournalFull, match="No space left on device"):
            while admitted < 10_000:
                journal.append(make.opened(admitted))
                journal.flush()
                admitted += 1
        assert not (tmp_path / "reserve").exists()
        for number in range(admitted):
            journal.append(make.settled(number))
        if journal.settings.reserve < 100 * admitted:
            with pytest.raises(JournalFull):
                await journal.commit()
        disk.capacity = 10**9
        await journal.commit()
        monkeypatch.setattr(writer, "PROBE_SECONDS", 0.0)
        journal._probe_at = 0.0
        journal.append(make.opened(admitted))
        assert (tmp_path / "reserve").stat().st_size == SMALL.reserve
        journal.append(make.settled(admitted))
        await journal.close()
        settled = [record.request_id for record in take_all(journal) if isinstance(record, Settled)]
        assert settled == [f"req_{number}" for number in range(admitted + 1)]

    asyncio.run(run())


def test_a_disk_too_full_for_the_reserve_admits_nothing(tmp_path: Path, make, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        monkeypatch.setattr(
            "tokenworks.journal.directory.write_atomically", lambda path, data, **_: _fail_if_large(path, data)
        )
        journal = Journal.open(tmp_path, SMALL)
        with pytest.raises(JournalFull, match="disk is full"):
            journal.append(make.opened(1))
        monkeypatch.undo()
        journal._probe_at = 0.0
        journal.append(make.opened(1))
        await journal.close()

    asyncio.run(run())


def _fail_if_large(path: Path, data: bytes) -> None:
    if len(data) > 1000:
        raise OSError(errno.ENOSPC, "No space left on device")
    path.write_bytes(data)


def test_a_failed_sync_is_never_forgotten(tmp_path: Path, make, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def run() -> None:
        journal = Journal.open(tmp_path, JournalSettings(durability="disk"))
        monkeypatch.setattr(writer, "_datasync", broken)
        journal.append(make.opened(1))
        with pytest.raises(writer.Unavailable, match="Input/output error; restart"):
            await journal.commit()
        monkeypatch.undo()
        with pytest.raises(JournalFull, match="Input/output error"):
            journal.append(make.opened(2))
        await journal.close()

    asyncio.run(run())


def test_an_overlong_error_text_does_not_cost_the_bill(tmp_path: Path, make, on_disk: OnDisk) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        journal = Journal.open(tmp_path)
        journal.append(Settled("req_1", 1, 1, "failed", charge=5, error="x" * 100_000))
        (record,) = on_disk(tmp_path)
        assert isinstance(record, Settled)
        assert (record.charge, len(record.error)) == (5, writer.LONGEST_ERROR)
        await journal.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"durability": "none"}, "durability 'none'"),
        ({"segment_bytes": 10}, "segment_bytes 10"),
        ({"disk_limit": 1024}, "disk_limit 1024"),
        ({"sync_seconds": 0}, "sync_seconds 0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        JournalSettings(**settings)  # type: ignore[arg-type]


def test_a_bad_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Journal.open(tmp_path / "file" / "journal")
    with pytest.raises(ValueError, match="gateway_id 'a/b'"):
        Journal.open(tmp_path, gateway_id="a/b")
    (tmp_path / "gateway_id").write_text("a b")
    with pytest.raises(ValueError, match="does not hold a gateway id"):
        Journal.open(tmp_path)


def test_a_segment_stays_until_control_has_what_replaces_it(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        journal = Journal.open(tmp_path, SMALL)
        journal.append(make.opened(0))
        number = 1
        while len(list(tmp_path.glob("*.journal"))) == 1:
            journal.append(make.settled(number))
            number += 1
        await journal.close()
        assert journal.end == number + 1, "the new segment starts with the open attempt again"
        journal.acknowledge(number)
        assert len(list(tmp_path.glob("*.journal"))) == 2
        journal.acknowledge(number + 1)
        assert len(list(tmp_path.glob("*.journal"))) == 1

    asyncio.run(run())


def test_a_number_that_control_has_is_not_given_again(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        journal = Journal.open(tmp_path)
        for number in range(10):
            journal.append(make.settled(number))
        await journal.close()
        journal.acknowledge(10)
        (path,) = tmp_path.glob("*.journal")
        os.truncate(path, path.stat().st_size // 2)
        journal = Journal.open(tmp_path)
        assert journal.end == 10
        journal.append(make.settled(10))
        await journal.close()
        assert take_all(journal) == [make.settled(10)]

    asyncio.run(run())
