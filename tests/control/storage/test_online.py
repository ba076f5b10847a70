"""A migration on PostgreSQL locks nobody out of a big table: what its steps say, and indexes that are made beside."""

import asyncio
import re
from types import SimpleNamespace

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from tokenworks.control.storage import migrate, online
from tokenworks.control.storage.database import Database
from tokenworks.control.storage.online import BIG, Index

BEFORE = "0013"
"""Until here there were no installations to be careful with."""
INDEXES = [
    Index("ix_audit_log_action", "audit_log", "(action)"),
    Index("ix_usage_provider", "usage", "(provider) WHERE NOT rolled"),
]
ENTRY = "INSERT INTO audit_log SELECT '{}', '', 0, '{{}}', '', '', '', '', '', 'done', '', ''"
_SLOW = (
    (r"CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)(IF NOT EXISTS )?\S+ ON (ONLY )?(?P<table>\w+)", "declare it as INDEXES"),
    (r"ALTER TABLE (ONLY )?(?P<table>\w+) .*\bTYPE\b", "a change of type writes the whole table anew: add a column"),
    (r"ALTER TABLE (ONLY )?(?P<table>\w+) .*SET NOT NULL", "it reads the whole table: check a constraint NOT VALID"),
    (r"ALTER TABLE (ONLY )?(?P<table>\w+) ADD CONSTRAINT (?!.*NOT VALID)", "it reads the whole table: NOT VALID"),
    (r"UPDATE (ONLY )?(?P<table>\w+) ", "it writes every row in one transaction: do it in pieces, after the start"),
    (r"DELETE FROM (ONLY )?(?P<table>\w+)", "in pieces, after the start"),
)


def slow(statements):
    """What of these statements holds a big table for as long as it is big, with the remedy."""
    found = []
    for statement in statements:
        flat = re.sub(r"\s+", " ", statement)
        for pattern, remedy in _SLOW:
            match = re.match(pattern, flat, re.IGNORECASE)
            if match and match["table"].strip('"') in BIG:
                found.append(f"{flat}: {remedy}")
    return found


def _on(url, work):
    async def whole():
        database = Database(url)
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(whole())


def test_no_new_migration_locks_a_big_table(postgres):
    """Up to the newest and back, as PostgreSQL hears it."""
    heard = []

    async def work(database):
        await migrate.upgrade(database, BEFORE)
        engine = database._writer.sync_engine
        event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_: heard.append(statement))
        await migrate.upgrade(database)
        await migrate.downgrade(database, BEFORE)

    _on(postgres.database(), work)
    assert len([each for each in heard if "lock_timeout" in each]) == 2, "each direction waits for no lock for long"
    assert heard.index("SET LOCAL lock_timeout = '10s'") == 1, "before anything that takes one"
    assert any("CREATE TRIGGER" in each for each in heard)
    assert slow(heard) == []


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX ix ON usage (model)",
        "create unique index ix on audit_log (id)",
        "ALTER TABLE ledger_entries ALTER COLUMN amount TYPE NUMERIC",
        "ALTER TABLE usage ALTER COLUMN model SET NOT NULL",
        "ALTER TABLE answers ADD CONSTRAINT c CHECK (true)",
        "UPDATE usage SET rolled = false",
        "DELETE FROM\n  batch_lines",
    ],
)
def test_what_would_lock_is_seen(statement):
    assert len(slow([statement])) == 1


def test_what_would_not():
    harmless = [
        "CREATE INDEX CONCURRENTLY ix ON usage (model)",
        "CREATE INDEX ix ON limits (model)",
        "ALTER TABLE usage ADD COLUMN x BIGINT DEFAULT 0 NOT NULL",
    ]
    assert slow(harmless) == []


def test_an_index_is_made_while_others_read_and_write(postgres):
    """A reader's transaction stays open and a writer inserts; one that was left half made is made anew."""

    async def work(database):
        await migrate.upgrade(database)
        async with database.write() as connection:
            await connection.execute(
                text("CREATE TABLE usage_2026_01 PARTITION OF usage FOR VALUES FROM ('a') TO ('b')")
            )
        blocked = await database.dedicated()
        await blocked.exec_driver_sql("SET lock_timeout = '100ms'")
        reading = await database._writer.connect()
        await reading.exec_driver_sql(ENTRY.format("a1"))
        with pytest.raises(DBAPIError, match="lock timeout"):  # it waits for the writer, and is left invalid
            await blocked.exec_driver_sql(INDEXES[0].create("CONCURRENTLY "))
        await blocked.close()
        building = asyncio.create_task(online.build(database, INDEXES))
        async with database.read() as waiting:
            query = text(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND query LIKE '% INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'"
            )
            while not (await waiting.execute(query)).scalar():
                assert not building.done(), building
                await waiting.rollback()
                await asyncio.sleep(0.01)
        async with database.write() as connection:  # it holds nobody up
            await connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
            await connection.exec_driver_sql(ENTRY.format("a2"))
        await reading.commit()
        await reading.close()
        await building
        await online.build(database, INDEXES)
        async with database.read() as connection:
            query = (
                "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid "
                "WHERE relname ~ 'ix_(audit_log_action|usage_provider)' ORDER BY 1"
            )
            rows = await connection.execute(text(query))
            assert [tuple(row) for row in rows] == [
                ("ix_audit_log_action", True),
                ("ix_usage_provider", True),
                ("usage_2026_01_ix_usage_provider", True),
                ("usage_default_ix_usage_provider", True),
            ]

    _on(postgres.database(), work)


def test_two_starts_make_an_index_once(postgres):
    async def work(database):
        await migrate.upgrade(database)
        other = Database(database.url.render_as_string(hide_password=False))
        try:
            await asyncio.gather(*[online.build(each, INDEXES) for each in (database, other, database)])
        finally:
            await other.close()

    _on(postgres.database(), work)


@pytest.mark.both_databases
def test_what_a_migration_declares_is_made(with_database, monkeypatch):
    steps = [SimpleNamespace(module=SimpleNamespace(INDEXES=INDEXES[:1]))]

    async def work(database):
        await migrate.downgrade(database, BEFORE)
        monkeypatch.setattr(migrate.ScriptDirectory, "iterate_revisions", lambda *_: steps)
        assert migrate.declared() == INDEXES[:1]
        monkeypatch.undo()
        monkeypatch.setattr(migrate, "declared", lambda *_: INDEXES[:1])
        await migrate.upgrade(database)
        await migrate.upgrade(database)
        async with database.write() as connection:
            await connection.exec_driver_sql("DROP INDEX ix_audit_log_action")

    with_database(work)
