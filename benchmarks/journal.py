"""How many records one core writes down, on both sides, and what one append costs a request. Prints a table."""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
from tests.postgres import running_postgres

from tokenworks.control.ingest.journal import JournalIngest
from tokenworks.control.storage import migrate, partitions, proofs
from tokenworks.control.storage.database import Database, sqlite_url
from tokenworks.core import request_ids
from tokenworks.journal import framing
from tokenworks.journal.framing import read_batch
from tokenworks.journal.records import Opened, Settled, UsageRecord
from tokenworks.journal.writer import Journal, JournalSettings

ROUNDS = 5
REQUESTS = 20_000
COMMITS = 2_000
INGESTED = 20_000
AT_ONCE = 64
TARGET = 20_000

Work = Callable[[Journal, list[float]], Awaitable[int]]


def _records(number: int) -> tuple[Opened, Settled]:
    name, now = f"req_{number:024d}", time.time_ns()
    opened = Opened(
        name, 1, now, "key_0123456789", "proj_0123456789", "org_0123456789", "openai_chat", "smollm2-135m",
        "smollm2-135m/0", "local/llamacpp", "smollm2-135m", True,
    )  # fmt: skip
    usage = UsageRecord(input=120, output=250)
    return opened, Settled(name, 1, now, "completed", usage, 15_000, finish_reason="stop", duration_ns=10**9)


async def _hot_path(journal: Journal, latencies: list[float]) -> int:
    """As the gateway does: opened, flushed before the attempt leaves, settled."""
    for number in range(REQUESTS):
        opened, settled = _records(number)
        begin = time.perf_counter()
        journal.append(opened)
        journal.flush()
        journal.append(settled)
        latencies.append((time.perf_counter() - begin) / 2)
        if number % 16 == 0:
            await asyncio.sleep(0)
    return 2 * REQUESTS


async def _committed(journal: Journal, latencies: list[float]) -> int:
    """Durability "disk" with 64 requests at once, each waiting for its sync."""

    async def request(numbers: range) -> None:
        for number in numbers:
            for record in _records(number):
                journal.append(record)
            begin = time.perf_counter()
            await journal.commit()
            latencies.append(time.perf_counter() - begin)

    each = COMMITS // AT_ONCE
    await asyncio.gather(*[request(range(first * each, first * each + each)) for first in range(AT_ONCE)])
    return 2 * each * AT_ONCE


async def _read_back(journal: Journal, latencies: list[float]) -> int:
    """What control does with a batch: check and decode."""
    await _hot_path(journal, [])
    await journal.commit()
    count = 0
    begin = time.perf_counter()
    while (batch := journal.read()) is not None:
        count += len(read_batch(batch.data))
        journal.acknowledge(batch.end)
        latencies.append(time.perf_counter() - begin)
        begin = time.perf_counter()
    return count


async def _round(work: Work, settings: JournalSettings) -> tuple[float, list[float]]:
    latencies: list[float] = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TOKENWORKS_BENCH_DIR", ".")) as directory:
        journal = Journal.open(Path(directory), settings)
        try:
            begin = time.perf_counter()
            count = await work(journal, latencies)
            elapsed = sum(latencies) if work is _read_back else time.perf_counter() - begin
        finally:
            await journal.close()
    return count / elapsed, latencies


async def _ingest(url: str, keys: int) -> float:
    """Records per second that control takes from batches of a journal: usage, its sums and the ledger's charges."""
    database = Database(url)
    try:
        await migrate.upgrade(database)
        async with database.write() as connection:
            await connection.run_sync(partitions.make, int(time.time()))
        ingest = JournalIngest(database)
        batches, position = list(_batches(keys)), 0
        begin = time.perf_counter()
        for batch in batches:
            position = await ingest.take("gw_bench", position, False, batch)
        elapsed = time.perf_counter() - begin
        assert (await database.write_batch(proofs.check))["differences"] == []
        return position / elapsed
    finally:
        await database.close()


def _batches(keys: int) -> Iterator[bytes]:
    """As the shipper makes them: 1,000 records."""
    for _ in range(INGESTED // 1_000):
        batch = bytearray()
        for number in range(500):
            name = request_ids.new()
            opened, settled = _records(number)
            framing.append(batch, msgspec.structs.replace(opened, request_id=name, key_id=f"key_{number % keys}"))
            framing.append(batch, msgspec.structs.replace(settled, request_id=name))
        yield bytes(batch)


def _end_to_end() -> None:
    where = os.environ.get("TOKENWORKS_BENCH_DIR", ".")
    with running_postgres() as server, tempfile.TemporaryDirectory(dir=where) as folder:
        files = (sqlite_url(Path(folder) / f"{number}.db") for number in range(2 * ROUNDS))
        makers = (("SQLite, synced", lambda: next(files)), ("PostgreSQL, same core, no sync", server.database))
        for name, make in makers:
            for keys in (1, 200):
                rate = statistics.median(asyncio.run(_ingest(make(), keys)) for _ in range(ROUNDS))
                print(f"{f'control: {name}, {keys} keys':40}{rate:12,.0f}{rate / TARGET:10.1f}")


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows: list[tuple[str, Work, JournalSettings, str]] = [
        ("append + flush (hot path)", _hot_path, JournalSettings(), "record"),
        ('commit, durability "disk", 64 at once', _committed, JournalSettings(durability="disk"), "commit"),
        ("read, check and decode batches", _read_back, JournalSettings(sync_seconds=60, durability="disk"), "batch"),
    ]
    print(f"journal, one core, median of {ROUNDS} rounds")
    print(f"{'':40}{'records/s':>12}{'x target':>10}{'p50 us':>10}{'p99 us':>10}  per")
    for name, work, settings, unit in rows:
        rounds = [asyncio.run(_round(work, settings)) for _ in range(ROUNDS)]
        rate = statistics.median(rate for rate, _ in rounds)
        quantiles = statistics.quantiles([1e6 * value for _, values in rounds for value in values], n=100)
        print(f"{name:40}{rate:12,.0f}{rate / TARGET:10.1f}{quantiles[49]:10.1f}{quantiles[98]:10.1f}  {unit}")
    _end_to_end()


if __name__ == "__main__":
    main()
