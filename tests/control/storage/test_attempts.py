"""Whatever order, cut and repetition the records come in, the rows are the same."""

import asyncio
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import asyncpg

from tokenworks.control.storage import partitions
from tokenworks.control.storage.attempts import AttemptWriter, storable
from tokenworks.control.storage.database import Database
from tokenworks.control.storage.tables import usage
from tokenworks.core.request_ids import first
from tokenworks.journal.records import Opened, Progress, Settled, UsageRecord

COUNT = st.integers(0, 2**40)
NOVEMBER = 1_796_000_000
SECONDS = (*(first(NOVEMBER + month * 30 * 86_400) for month in (-3, 0, 1, 2)), "batch_")
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)


@st.composite
def attempt_records(draw, number):
    """A life of an attempt: opened, growing progress, and perhaps settled."""
    moment = draw(st.sampled_from(SECONDS))  # of any month, or none
    request, attempt = f"{moment}{number // 2:016x}", number % 2
    flag, text = (
        draw(st.booleans()),
        draw(TEXT),
    )
    records = [Opened(request, attempt, 10**18 + draw(COUNT), "k", "p", "o", "proto", text, "u", "prov", "um", flag)]
    output = 0
    for step in draw(st.lists(st.integers(1, 100), max_size=3)):
        output += step
        records.append(Progress(request, attempt, UsageRecord(3, 0, 0, output), output * 7))
    if flag:
        tokens = UsageRecord(*draw(st.tuples(*[COUNT] * 5)))
        fields = {"status": 502, "error": text, "finish_reason": text, "first_token_ns": 1, "duration_ns": draw(COUNT)}
        fields |= {"tier": draw(st.sampled_from(["", "default", "flex"])), "price": text, "cost": draw(COUNT)}
        fields |= {"counted": draw(st.sampled_from([None, tokens])), "reported": draw(st.sampled_from([None, tokens]))}
        records.append(Settled(request, attempt, 2 * 10**18, "lost", tokens, draw(COUNT), estimated=True, **fields))
    return records


@st.composite
def deliveries(draw):
    """(records in their order, the same in any order, repeated and cut into batches)."""
    lives = [draw(attempt_records(number)) for number in range(draw(st.integers(1, 4)))]
    records = [record for life in lives for record in life]
    mixed = draw(st.permutations(records + draw(st.lists(st.sampled_from(records), max_size=6))))
    cuts = sorted({0, len(mixed), *draw(st.lists(st.integers(0, len(mixed)), max_size=4))})
    return records, [mixed[begin:end] for begin, end in pairwise(cuts)]


async def _rows(database, batches):
    writer = AttemptWriter(database.dialect)
    async with database.write() as connection:
        await connection.execute(usage.delete())
    for batch in batches:
        await database.write_batch(lambda connection, batch=batch: writer.write(connection, batch))
    async with database.read() as connection:
        order = (usage.c.request_id, usage.c.attempt)
        columns = [column for column in usage.c if column.name != "posting"]  # a random number
        return [tuple(row) for row in await connection.execute(select(*columns).order_by(*order))]


async def _make_partitions(database):
    async with database.write() as connection:
        await connection.run_sync(partitions.make, NOVEMBER)


@pytest.mark.both_databases
def test_any_delivery_gives_the_same_rows(database_url, backend):
    database = Database(database_url())
    with asyncio.Runner() as runner:
        runner.run(_make_partitions(database))

        @settings(max_examples=200 if backend == "sqlite" else 60, deadline=None)
        @given(deliveries())
        def check(delivery):
            records, batches = delivery
            straight = runner.run(_rows(database, [[record] for record in records]))
            assert len(straight) == len({(record.request_id, record.attempt) for record in records})
            assert runner.run(_rows(database, batches)) == straight

        check()
        runner.run(database.close())


@pytest.mark.both_databases
def test_a_row_holds_every_field(with_database, make):
    opened, settled = msgspec.structs.replace(make.opened(1), residency="proj: region=eu"), make.settled(1)
    settled = msgspec.structs.replace(settled, guardrails="pii:redact:EMAIL=2")
    row = with_database(lambda database: _rows(database, [[opened, make.progress(1, 5), settled]]))[0]
    who = [getattr(opened, name) for name in Opened.__struct_fields__ if name != "residency"]
    tokens = (7, 1, 2, 99, 3, *[0] * 9)
    end = (settled.status, settled.error, settled.finish_reason, settled.first_token_ns, settled.duration_ns, True)
    money = (settled.charge, settled.cost, settled.price, settled.cost_price, None, None)
    assert row == (*who, settled.at, settled.outcome, *tokens, *money, *end, True, opened.residency, settled.guardrails)


def test_other_counts_are_kept_as_json(with_database, make):
    other = UsageRecord(input=9, output=100)
    settled = msgspec.structs.replace(make.settled(1), reported=other, tier="flex", cost=7, price="p1", cost_price="c1")
    for batch in ([make.opened(1), settled, make.opened(1)], [settled, make.opened(1)]):
        (row,) = with_database(lambda database, batch=batch: _rows(database, [[record] for record in batch]))
        named = dict(zip(usage.c.keys()[:-1], row, strict=True))
        assert msgspec.json.decode(named["reported"], type=UsageRecord) == other
        assert (named["counted"], named["tier"]) == (None, "flex")
        assert (named["cost"], named["price"], named["cost_price"]) == (7, "p1", "c1")


@pytest.mark.both_databases
def test_the_first_settlement_stands(with_database, make):
    batches = [[make.settled(1)], [make.settled(1, outcome="lost")]]
    (row,) = with_database(lambda database: _rows(database, batches))
    assert "completed" in row


@pytest.mark.both_databases
def test_a_settlement_without_its_opening_is_dated(with_database, make):
    (row,) = with_database(lambda database: _rows(database, [[make.progress(1, 4)], [make.settled(1)]]))
    assert row[2] == make.settled(1).at - make.settled(1).duration_ns


@pytest.mark.parametrize(
    "record, verdict",
    [
        (Progress("r", 1, UsageRecord(output=2**63)), False),
        (Progress("r", 1, UsageRecord(output=2**63 - 1)), True),
        (Settled("r", 1, 1, "completed", error="a\0b"), False),
        (Settled("r", 2**63, 1, "completed"), False),
        (Settled("r", 1, 1, "completed"), True),
    ],
)
def test_what_can_be_stored(record, verdict):
    assert storable(record) is verdict


def test_the_statements_suit_postgresql():
    writer = AttemptWriter(asyncpg.dialect())
    assert "ON CONFLICT (request_id, attempt) DO UPDATE" in writer._settled[0]
    assert "$1" in writer._progress[0]
