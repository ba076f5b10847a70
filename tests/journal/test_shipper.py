import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from tokenworks.client import Client
from tokenworks.journal.framing import read_batch
from tokenworks.journal.reader import BATCH_BYTES, BATCH_RECORDS
from tokenworks.journal.records import Settled
from tokenworks.journal.shipper import Shipper
from tokenworks.journal.writer import Journal, JournalSettings

FAST = JournalSettings(segment_bytes=4096, disk_limit=1024 * 1024, sync_seconds=0.01)


@dataclass
class LedgerControl:
    """Control's side of the contract in small: a real server that keeps settled attempts, and misbehaves on demand.

    `faults` are taken one per batch: an HTTP status, "cut" (stores, then breaks the connection before it
    answers), "half" (takes half of the batch), or a ready body.
    """

    socket: Path
    wanted: dict[str, int] = field(default_factory=dict)
    settled: dict[tuple[str, int], Settled] = field(default_factory=dict)
    batches: list[tuple[int, int, bool]] = field(default_factory=list)
    faults: list[int | str | bytes] = field(default_factory=list)

    async def _take(self, request: web.Request) -> web.StreamResponse:
        gateway, first = request.match_info["gateway"], int(request.query["first"])
        oldest = request.query.get("oldest") == "1"
        body = await request.read()
        records = read_batch(body)
        assert len(records) <= BATCH_RECORDS
        assert len(body) <= BATCH_BYTES
        self.batches.append((first, len(records), oldest))
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, int):
            return web.json_response({"error": {"message": "database is away"}}, status=fault)
        if isinstance(fault, bytes):
            return web.Response(body=fault)
        if first > self.wanted.get(gateway, 0) and not oldest:
            return web.json_response({"acknowledged": self.wanted.get(gateway, 0)})
        if fault == "half":
            records = records[: len(records) // 2]
        for record in records:
            if isinstance(record, Settled):
                self.settled.setdefault((record.request_id, record.attempt), record)
        self.wanted[gateway] = max(first + len(records), self.wanted.get(gateway, 0))
        if fault == "cut":
            assert request.transport is not None
            request.transport.close()
        return web.json_response({"acknowledged": self.wanted[gateway]})

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/internal/v1/journal/{gateway}", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(self.socket)).start()
        try:
            yield
        finally:
            await runner.cleanup()

    def names(self) -> list[str]:
        return [request_id for request_id, _ in self.settled]


@asynccontextmanager
async def shipping(directory: Path, socket: Path) -> AsyncIterator[tuple[Journal, Shipper]]:
    journal = Journal.open(directory, FAST)
    async with Client(f"unix:{socket}") as client:
        shipper = Shipper(journal, client)
        shipper.start()
        try:
            yield journal, shipper
        finally:
            await shipper.stop()
            await journal.close()


@pytest.fixture
def ledger(tmp_path: Path) -> LedgerControl:
    return LedgerControl(tmp_path / "control.sock")


def append(journal: Journal, make, numbers: range) -> None:  # type: ignore[no-untyped-def]
    for number in numbers:
        journal.append(make.opened(number))
        journal.append(make.settled(number))


def expected(count: int) -> list[str]:
    return [f"req_{number}" for number in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - waits for another task or the server, whatever it does
            await asyncio.sleep(0.01)


def test_everything_arrives_once_and_is_forgotten(tmp_path: Path, ledger: LedgerControl, make) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        async with ledger.running(), shipping(tmp_path / "j", ledger.socket) as (journal, shipper):
            append(journal, make, range(1500))
            assert await shipper.drain(30)
            assert shipper.connected
            assert journal.lag == 0
            append(journal, make, range(1500, 1501))
            await until(lambda: journal.lag == 0)
            assert ledger.names() == expected(1501)
            assert len(list((tmp_path / "j").glob("*.journal"))) == 1
            assert [first for first, _, _ in ledger.batches[1:]] == [
                first + count for first, count, _ in ledger.batches[:-1]
            ]

    asyncio.run(run())


def test_faults_cost_repetitions_but_no_record(tmp_path: Path, ledger: LedgerControl, make) -> None:  # type: ignore[no-untyped-def]
    ledger.faults = [
        500,
        "cut",
        "half",
        503,
        b"no json",
        b'{"acknowledged": "x"}',
        b'{"acknowledged": -1}',
        "half",
        "cut",
    ]

    async def run() -> None:
        async with ledger.running(), shipping(tmp_path / "j", ledger.socket) as (journal, shipper):
            append(journal, make, range(800))
            assert await shipper.drain(30)
            assert ledger.names() == expected(800)
            assert ledger.faults == []

    asyncio.run(run())


def test_control_away_then_back(tmp_path: Path, ledger: LedgerControl, make) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        async with shipping(tmp_path / "j", ledger.socket) as (journal, shipper):
            append(journal, make, range(10))
            assert not await shipper.drain(0.3)
            assert not shipper.connected
            assert journal.lag == 20
            for count in (10, 20, 30):
                async with ledger.running():
                    append(journal, make, range(count, count + 10))
                    await until(lambda: journal.lag == 0)
            assert ledger.names() == expected(40)

    asyncio.run(run())


def test_a_restarted_gateway_goes_on_where_it_was(tmp_path: Path, ledger: LedgerControl, make) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        async with ledger.running():
            for life in range(3):
                async with shipping(tmp_path / "j", ledger.socket) as (journal, shipper):
                    append(journal, make, range(10 * life, 10 * life + 10))
                    journal.append(make.opened(1000 + life))
                    assert await shipper.drain(30)
            lost = {record.request_id for record in ledger.settled.values() if record.outcome == "lost"}
            assert lost == {"req_1000", "req_1001"}
            assert len(ledger.settled) == 32
            assert len(ledger.wanted) == 1

    asyncio.run(run())


def test_a_control_that_was_restored_gets_again_what_is_still_there(
    tmp_path: Path, ledger: LedgerControl, make
) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        async with ledger.running(), shipping(tmp_path / "j", ledger.socket) as (journal, shipper):
            append(journal, make, range(5))
            assert await shipper.drain(30)
            # The database of a moment ago: it has less, and the journal still has it.
            ledger.wanted[journal.gateway_id] = 4
            ledger.settled = {key: record for key, record in ledger.settled.items() if key[0] in ("req_0", "req_1")}
            append(journal, make, range(5, 6))
            assert await shipper.drain(30)
            await until(lambda: ledger.names() == expected(6))
            # The database of long ago: the journal starts with what it has, and says so.
            append(journal, make, range(6, 200))
            assert await shipper.drain(30)
            ledger.wanted.clear()
            append(journal, make, range(200, 201))
            await until(lambda: "req_200" in ledger.names())
            assert ledger.batches[-1][2]
            assert ledger.names() == expected(201)

    asyncio.run(run())


def test_a_journal_that_was_restored_takes_a_new_id(tmp_path: Path, ledger: LedgerControl, make) -> None:  # type: ignore[no-untyped-def]
    async def run() -> None:
        async with ledger.running(), shipping(tmp_path / "j", ledger.socket) as (journal, shipper):
            before = journal.gateway_id
            ledger.wanted[before] = 1_000
            append(journal, make, range(20))
            assert await shipper.drain(30)
            assert journal.gateway_id != before
            assert ledger.wanted[journal.gateway_id] == 40
            assert ledger.names() == expected(20)
            assert (tmp_path / "j" / "gateway_id").read_text() == journal.gateway_id

    asyncio.run(run())


def test_a_control_that_takes_nothing_is_not_hammered(tmp_path: Path, ledger: LedgerControl, make) -> None:  # type: ignore[no-untyped-def]
    ledger.faults = [b'{"acknowledged": 0}'] * 1_000

    async def run() -> None:
        async with ledger.running(), shipping(tmp_path / "j", ledger.socket) as (journal, shipper):
            append(journal, make, range(3))
            assert not await shipper.drain(0.5)
            assert not shipper.connected
            assert 1 <= len(ledger.batches) < 20
            ledger.faults = []
            await until(lambda: journal.lag == 0)
            assert ledger.names() == expected(3)

    asyncio.run(run())


def test_a_file_damaged_under_us_holds_the_journal_instead_of_skipping(
    tmp_path: Path,
    ledger: LedgerControl,
    make,  # type: ignore[no-untyped-def]
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        async with shipping(tmp_path / "j", ledger.socket) as (journal, _):
            append(journal, make, range(3))
            await until(lambda: journal.synced == 6)
            (path,) = (tmp_path / "j").glob("*.journal")
            data = path.read_bytes()
            path.write_bytes(data[:40] + b"\x00" + data[41:])
            async with ledger.running():
                await until(lambda: "is damaged" in caplog.text)
                assert ledger.batches == []
                path.write_bytes(data)
                await until(lambda: journal.lag == 0)
                assert ledger.names() == expected(3)

    asyncio.run(run())
