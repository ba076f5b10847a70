"""Whatever order records come in, and however often, the sums by the hour are those of the attempts."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tokenworks.control.storage.attempts import AttemptWriter
from tokenworks.control.storage.rollup import COUNTS, DIMENSIONS
from tokenworks.journal.records import Opened, Progress, Settled, UsageRecord

HOUR_NS = 3600 * 1_000_000_000

_counts = st.builds(UsageRecord, *[st.integers(0, 1000)] * 5)


@st.composite
def _attempt(draw, number):
    identity = (f"req_{number}", draw(st.integers(1, 2)))
    at = draw(st.integers(0, 30 * HOUR_NS))
    names = [draw(st.sampled_from(pair)) for pair in (("k1", "k2"), ("p1", "p2"), ("o1", "o2"), ("x", "y"), ("m", "n"))]
    where = ("up", "provider", "m-1", False, draw(st.booleans()), draw(st.sampled_from(("", "flex"))))
    usage, charge = draw(_counts), draw(st.integers(0, 10**12))
    outcome = draw(st.sampled_from(("completed", "failed", "cancelled")))
    records = [
        Opened(*identity, at, *names, *where),
        Progress(*identity, draw(_counts), draw(st.integers(0, 9))),
        Settled(*identity, at + 5, outcome, usage, charge),
    ]
    return draw(st.permutations(records))[: draw(st.integers(1, 3))]


@st.composite
def _history(draw):
    """Batches of records, with repetitions."""
    records = [record for number in range(draw(st.integers(1, 6))) for record in draw(_attempt(number))]
    records = draw(st.permutations(records + draw(st.lists(st.sampled_from(records), max_size=6))))
    size = draw(st.integers(1, 7))
    return [records[start : start + size] for start in range(0, len(records), size)]


SUMS = ", ".join(f"sum({name})" for name in COUNTS[1:])
GROUPS = ", ".join(DIMENSIONS)
DAYS = GROUPS.replace("hour", "hour / 86400 * 86400")
BY_DAY = GROUPS.replace("hour", "day")
DAILY = f"SELECT {BY_DAY}, {', '.join(COUNTS)} FROM usage_daily ORDER BY {BY_DAY}"
OF_HOURS = (
    f"SELECT {DAYS}, {', '.join(f'sum({name})' for name in COUNTS)} FROM usage_hourly GROUP BY {DAYS} ORDER BY {DAYS}"
)
ROLLED = f"SELECT {GROUPS}, {', '.join(COUNTS)} FROM usage_hourly ORDER BY {GROUPS}"
RAW = (
    f"SELECT {GROUPS.replace('hour', 'opened_ns / 3600000000000 * 3600 AS hour')}, count(*), {SUMS} FROM usage "
    f"WHERE settled_ns IS NOT NULL AND organization_id <> '' GROUP BY {GROUPS} ORDER BY {GROUPS}"
)


@pytest.mark.both_databases
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_history())
def test_the_rollup_is_the_sum_of_the_attempts(with_database, history):
    async def work(database):
        writer = AttemptWriter(database.dialect)
        for batch in history:
            await database.write_batch(lambda connection, batch=batch: writer.write(connection, batch))
            async with database.read() as connection:
                rolled = (await connection.execute(text(ROLLED))).all()
                assert rolled == (await connection.execute(text(RAW))).all()
                daily = (await connection.execute(text(DAILY))).all()
                assert daily == (await connection.execute(text(OF_HOURS))).all()

    with_database(work)


def test_taking_up_reads_only_what_is_new(with_database):
    """The partial index serves ingest; a growing table does not slow it."""

    async def work(database):
        async with database.read() as connection:
            plan = await connection.execute(
                text("EXPLAIN QUERY PLAN UPDATE usage SET rolled = 1 WHERE rolled = 0 AND settled_ns IS NOT NULL")
            )
            return " ".join(row.detail for row in plan)

    assert "ix_usage_unrolled" in with_database(work)
