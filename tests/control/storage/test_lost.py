"""Attempts of a gateway that does not come back, and one that does after all."""

import msgspec
import pytest
from sqlalchemy import text

from tokenworks.control.storage.attempts import AttemptWriter
from tokenworks.control.upkeep import Terms, Upkeep

pytestmark = pytest.mark.both_databases
NANO = 10**9
DAY = 86_400


class FixedClock:
    def __init__(self, now):
        self.now = now

    def now_ns(self):
        return self.now * NANO


async def write(database, *records):
    writer = AttemptWriter(database.dialect)
    await database.write_batch(lambda connection: writer.write(connection, records))


async def rows(database, query):
    async with database.read() as connection:
        return [tuple(row) for row in await connection.execute(text(query))]


SUMS = "SELECT sum(attempts), sum(output), sum(charge) FROM usage_hourly"


def test_the_last_progress_is_billed_once_whatever_comes_later(with_database, make):
    begun = make.opened(1).at // NANO

    async def work(database):
        await write(database, make.opened(1), make.progress(1, 50), make.opened(2), make.settled(2))
        await Upkeep(database, FixedClock(begun + DAY - 10), Terms()).step()
        assert await rows(database, SUMS) == [(1, 99, 990)], "it may still be running"
        await Upkeep(database, FixedClock(begun + DAY + 10), Terms()).step()
        query = "SELECT outcome, output, charge, estimated FROM usage WHERE request_id = 'req_000001'"
        (row,) = lost = await rows(database, query)
        assert (row[0], row[1], row[2], bool(row[3])) == ("lost", 50, 500, True)
        assert await rows(database, SUMS) == [(2, 149, 1490)]
        await write(database, make.opened(1), make.progress(1, 70), make.settled(1), make.opened(1))
        assert await rows(database, query) == lost
        assert await rows(database, SUMS) == [(2, 149, 1490)]
        posted = "SELECT sum(amount) FROM ledger_entries WHERE credit = 'revenue' OR debit = 'revenue'"
        assert await rows(database, posted) == [(1490,)]

    with_database(work)


def test_old_attempts_go_in_pieces_and_their_sums_stay(with_database, make, monkeypatch):
    monkeypatch.setattr("tokenworks.control.upkeep.AT_ONCE", 3)
    begun = make.opened(1).at // NANO

    async def work(database):
        old = [each for number in range(10) for each in (make.opened(number), make.settled(number))]
        young = [make.opened(20, at=(begun + 5 * DAY) * NANO), make.settled(20, at=(begun + 5 * DAY) * NANO)]
        orphan = msgspec.structs.replace(make.progress(30, 5))
        await write(database, *old, *young, orphan)
        await Upkeep(database, FixedClock(begun + 8 * DAY), Terms(keep=7 * DAY)).step()
        assert await rows(database, "SELECT count(*) FROM usage WHERE opened_ns > 0") == [(1,)]
        assert await rows(database, SUMS) == [(11, 11 * 99, 11 * 990)]
        await Upkeep(database, FixedClock(begun + 800 * DAY), Terms()).step()
        assert await rows(database, "SELECT count(*) FROM usage WHERE opened_ns > 0") == [(1,)], "kept for ever"

    with_database(work)
