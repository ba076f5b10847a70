"""`usage` by month: made ahead, filled from what came before, found by id, dropped as a whole."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from sqlalchemy import text

from tokenworks.control.storage import partitions
from tokenworks.control.storage.attempts import AttemptWriter
from tokenworks.core.request_ids import first
from tokenworks.journal.records import Opened, Settled

NOVEMBER = int(datetime(2026, 11, 25, tzinfo=UTC).timestamp())
DAY = 86_400


def life(second, settled=True, rest="0123456789abcdef"):
    name, at = first(second) + rest, second * 10**9
    records = [Opened(name, 1, at, "key", "proj", "org", "openai_chat", "m", "up", "provider", "m-1")]
    return [*records, Settled(name, 1, at + 5, "completed", charge=7)] if settled else records


async def write(database, *lives):
    writer = AttemptWriter(database.dialect)
    records = [record for each in lives for record in each]
    await database.write_batch(lambda connection: writer.write(connection, records))


async def run(database, function, *values):
    async with database.write() as connection:
        return await connection.run_sync(function, *values)


async def places(database):
    """Rows by partition."""
    async with database.read() as connection:
        rows = await connection.execute(
            text("SELECT tableoid::regclass::text, count(*) FROM usage GROUP BY 1 ORDER BY 1")
        )
        return {row[0]: row[1] for row in rows}


@pytest.fixture
def backend():
    return "postgresql"


def test_months_are_made_ahead_and_take_their_rows_out_of_the_default(with_database):
    async def work(database):
        await write(database, life(NOVEMBER), life(NOVEMBER + 40 * DAY), life(NOVEMBER - 40 * DAY), life(2**32 - 1))
        assert await places(database) == {"usage_default": 4}
        made = await run(database, partitions.make, NOVEMBER)
        assert made == ["usage_2026_11", "usage_2026_12", "usage_2027_01", "usage_2027_02"]
        assert await places(database) == {"usage_2026_11": 1, "usage_2027_01": 1, "usage_default": 2}
        assert await run(database, partitions.make, NOVEMBER) == []
        assert await run(database, partitions.make, NOVEMBER + 10 * DAY) == ["usage_2027_03"]
        await write(database, life(NOVEMBER), life(NOVEMBER, rest="f" * 16))
        assert (await places(database))["usage_2026_11"] == 2, "what is there is known"

    with_database(work)


def test_bounds_follow_each_other_without_a_gap():
    names = [f"usage_{year}_{month:02d}" for year in (2026, 2027, 2028) for month in range(1, 13)]
    ends = [partitions.bounds(name) for name in names]
    assert all(before[1] == after[0] for before, after in pairwise(ends))
    assert partitions.bounds("usage_2026_11") == (NOVEMBER - 24 * DAY, NOVEMBER + 6 * DAY)


def test_a_month_goes_when_all_of_it_is_old_and_summed(with_database):
    async def work(database):
        await run(database, partitions.make, NOVEMBER)
        await write(database, life(NOVEMBER), life(NOVEMBER + 10 * DAY))
        _, end = partitions.bounds("usage_2026_11")
        assert await run(database, partitions.drop, end) == [], "a batch of its last day may still run"
        await write(database, life(NOVEMBER, settled=False, rest="e" * 16))
        assert await run(database, partitions.drop, end + 8 * DAY) == [], "one is not settled"
        await write(database, life(NOVEMBER, rest="e" * 16))
        assert await run(database, partitions.drop, end + 8 * DAY) == ["usage_2026_11"]
        assert await places(database) == {"usage_2026_12": 1}
        async with database.read() as connection:
            kept = await connection.execute(text("SELECT sum(attempts), sum(charge) FROM usage_daily"))
            assert kept.one() == (3, 21), "the sums stay"

    with_database(work)


def test_a_request_is_looked_for_in_one_month(with_database):
    async def work(database):
        await run(database, partitions.make, NOVEMBER)
        query = f"EXPLAIN SELECT * FROM usage WHERE request_id = '{life(NOVEMBER)[0].request_id}'"
        async with database.read() as connection:
            plan = "\n".join((await connection.execute(text(query))).scalars())
        assert "usage_2026_11" in plan
        assert "usage_default" not in plan
        assert "usage_2026_12" not in plan

    with_database(work)
