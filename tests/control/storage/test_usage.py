"""Totals read sums where they can, and say what adding up attempts would; no question reads a whole table."""

import asyncio
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, select

from tokenworks.control.storage import invoices, partitions, reports, usage
from tokenworks.control.storage.attempts import AttemptWriter
from tokenworks.control.storage.database import Database
from tokenworks.control.storage.tables import usage as attempts
from tokenworks.core.request_ids import first
from tokenworks.journal.records import Opened, Settled, UsageRecord

DAY, NANO = 86_400, 10**9
BEGIN = 1_795_000_000 // DAY * DAY
MOMENT = st.integers(BEGIN - 2 * DAY, BEGIN + 3 * DAY)
BORDER = st.one_of(st.none(), MOMENT, MOMENT.map(lambda at: at // 3600 * 3600), MOMENT.map(lambda at: at // DAY * DAY))


def life(number, at, settled=True, organization="org"):
    name = first(at) + f"{number:016x}"
    opened = Opened(name, 1, at * NANO, f"key_{number % 2}", "proj", organization, "p", f"m{number % 3}", "u", "p", "m")
    outcome = "completed" if number % 4 else "failed"
    ended = Settled(name, 1, at * NANO + 5, outcome, UsageRecord(1, 0, 0, number), number)
    return [opened, ended] if settled else [opened]


async def fill(database, lives):
    writer = AttemptWriter(database.dialect)
    await database.write_batch(lambda connection: writer.write(connection, [each for life in lives for each in life]))


async def by_adding_up(connection, chosen):
    sums = (func.sum(attempts.c[name]).label(name) for name in usage.COUNTS)
    query = chosen.apply(select(attempts.c.outcome, func.count().label("attempts"), *sums))
    rows = (await connection.execute(query.group_by(attempts.c.outcome))).mappings()
    return {row["outcome"]: {name: int(value) for name, value in row.items() if name != "outcome"} for row in rows}


@pytest.mark.both_databases
def test_totals(database_url):
    """Many questions to one history of five days; some of its attempts are still open."""
    database = Database(database_url())
    chance = random.Random(7)
    moments = [BEGIN, BEGIN + 3599, BEGIN + 3600, BEGIN + DAY - 1, BEGIN + DAY]
    moments += [chance.randrange(BEGIN - 2 * DAY, BEGIN + 3 * DAY) for _ in range(300)]
    with asyncio.Runner() as runner:
        runner.run(fill(database, [life(number, at, number % 5 > 0) for number, at in enumerate(moments)]))

        async def compare(chosen):
            async with database.read() as connection:
                found = await usage.totals(connection, chosen)
                told = {row["outcome"]: {name: row[name] for name in row if name != "outcome"} for row in found}
                assert told == await by_adding_up(connection, chosen)

        @settings(max_examples=60, deadline=None)
        @given(st.tuples(BORDER, BORDER), st.sampled_from((None, "key_1")))
        @example((BEGIN + 1, BEGIN + DAY + 1), None)
        @example((BEGIN + 3599, BEGIN + 3601), None)
        def check(span, key_id):
            runner.run(compare(usage.Filter(*span, key_id=key_id)))

        check()
        runner.run(database.close())


async def plans(database, question):
    """What PostgreSQL would do for each statement of a question, had it no cheap way to read whole small tables."""
    asked = []
    engine = database._reader.sync_engine

    def note(_connection, _cursor, statement, parameters, _context, _many):
        if statement.startswith(("SELECT", "WITH")):
            asked.append((statement, parameters))

    async with database.read() as connection:
        event.listen(engine, "before_cursor_execute", note)
        await question(connection)
        event.remove(engine, "before_cursor_execute", note)
        await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        for statement, parameters in asked:
            rows = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            yield statement, "\n".join(rows.scalars())


def ask(function, *values):
    return lambda connection: function(connection, *values)


def ask_synchronously(function, *values):
    return lambda connection: connection.run_sync(function, *values)


QUESTIONS = {
    "invoice": ask_synchronously(invoices.groups, "org", "2026-11", BEGIN, BEGIN + 30 * DAY),
    "days": ask(reports.buckets, reports.Question("org", BEGIN, BEGIN + 30 * DAY, DAY, ("model",))),
    "hours": ask(reports.buckets, reports.Question("org", BEGIN, BEGIN + 7 * DAY, 3600, ("project_id",))),
    "minutes": ask(reports.buckets, reports.Question("org", BEGIN, BEGIN + 3600, 60)),
    "attempts of an organization": ask(usage.page, usage.Filter(organization_id="org"), 100, None),
    "attempts of all": ask(usage.page, usage.Filter(), 100, None),
    "totals of an organization": ask(usage.totals, usage.Filter(BEGIN + 5, BEGIN + 9 * DAY + 5, organization_id="org")),
    "totals of all": ask(usage.totals, usage.Filter(BEGIN + 5, BEGIN + 30 * DAY + 5)),
}


@pytest.mark.parametrize("backend", ["postgresql"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_no_question_reads_a_whole_table(with_database, question):
    async def work(database):
        async with database.write() as connection:
            await connection.run_sync(partitions.make, BEGIN)
        await fill(database, [life(number, BEGIN + 60 * number) for number in range(200)])
        seen = 0
        async for statement, plan in plans(database, QUESTIONS[question]):
            seen += 1
            assert "Seq Scan" not in plan, f"{statement}\n{plan}"
            assert "Filter: (opened_ns" not in plan, plan
        assert seen

    with_database(work)
