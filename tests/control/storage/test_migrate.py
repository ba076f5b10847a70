"""Up, down, up again; and the migrations make exactly what the tables say."""

import asyncio
import io
import re

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, MetaData, inspect, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, CreateTable

from tokenworks.control.startup import StartupError
from tokenworks.control.storage import migrate
from tokenworks.control.storage.database import Database, parse_url, sqlite_url
from tokenworks.control.storage.tables import metadata


async def _tables(database):
    async with database.read() as connection:
        return set(await connection.run_sync(_names))


def _names(connection):
    """Of tables, without the partitions of `usage`."""
    return {name for name in inspect(connection).get_table_names() if not name.startswith("usage_default")}


def _schema(connection):
    """Everything about tables that the database itself tells: columns, constraints, indexes with their conditions."""
    found = {}
    for name in _names(connection):
        looked = inspect(connection)
        columns = {
            each["name"]: (str(each["type"]), each["nullable"], each["default"]) for each in looked.get_columns(name)
        }
        if connection.dialect.name == "postgresql":
            indexes = connection.execute(
                text("SELECT indexdef FROM pg_indexes WHERE tablename = :name ORDER BY 1"), {"name": name}
            ).scalars()
            rules = (
                "SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = {}::regclass"
            )
            more = list(connection.execute(text(rules.format(f"'{name}'") + " ORDER BY 1")).scalars())
        else:
            query = "SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = :name AND sql IS NOT NULL"
            indexes = connection.execute(text(query + " ORDER BY 1"), {"name": name}).scalars()
            key = looked.get_pk_constraint(name)
            unique = sorted((each["name"], *each["column_names"]) for each in looked.get_unique_constraints(name))
            foreign = sorted((each["name"], str(each)) for each in looked.get_foreign_keys(name))
            checks = sorted((each["name"], each["sqltext"]) for each in looked.get_check_constraints(name))
            more = [key["name"], tuple(key["constrained_columns"]), unique, foreign, checks]
        found[name] = (columns, [re.sub(r"\s+", " ", each) for each in indexes], more)
    return found


@pytest.mark.both_databases
def test_up_down_up(with_database):
    async def work(database):
        assert await _tables(database) == {*metadata.tables, "alembic_version"}
        await migrate.upgrade(database)
        await migrate.downgrade(database, "base")
        assert await _tables(database) == {"alembic_version"}
        await migrate.upgrade(database)
        assert await _tables(database) == {*metadata.tables, "alembic_version"}

    with_database(work)


@pytest.mark.both_databases
def test_migrations_and_tables_say_the_same(with_database):
    async def work(database):
        async with database.read() as connection:
            migrated = await connection.run_sync(_schema)
        await migrate.downgrade(database, "base")
        async with database.write() as connection:
            await connection.run_sync(metadata.create_all)
            created = await connection.run_sync(_schema)
        migrated.pop("alembic_version")
        created.pop("alembic_version")
        for name in migrated.keys() | created.keys():
            assert migrated.get(name) == created.get(name), name

    with_database(work)


REVISIONS = sorted(step.revision for step in ScriptDirectory(str(migrate.MIGRATIONS)).walk_revisions())
SUMS = {"usage_hourly", "usage_daily"}
"""Made from the attempts."""


@pytest.mark.both_databases
@pytest.mark.parametrize("revision", REVISIONS)
def test_every_older_database_is_brought_up_with_its_rows_and_back(with_database, revision):
    def fill(connection):
        """One row in every table there is, in an order that foreign keys like."""
        known = MetaData()
        known.reflect(connection)
        tables = [table for table in known.sorted_tables if table.name not in ("alembic_version", "usage_default")]
        for table in tables:
            connection.execute(table.insert().values({column.name: _value(column) for column in table.columns}))
        return {table.name for table in tables}

    def counts(connection, names):
        return {name: connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar() for name in names}

    async def work(database):
        await migrate.downgrade(database, "base")
        await migrate.upgrade(database, revision)
        async with database.write() as connection:
            names = await connection.run_sync(fill)
        await migrate.upgrade(database)
        async with database.read() as connection:
            assert set((await connection.run_sync(counts, names - SUMS)).values()) == {1}
        await migrate.downgrade(database, revision)
        async with database.read() as connection:
            assert set((await connection.run_sync(counts, names - SUMS)).values()) == {1}
        await migrate.downgrade(database, "base")
        assert await _tables(database) == {"alembic_version"}

    with_database(work)


def _value(column):
    if isinstance(column.type, JSON):
        return ["x"]
    made = {int: 1, float: 0.5, bool: False, bytes: b"x"}.get(column.type.python_type, "x")
    return "debit" if column.name == "debit" else made


def test_two_controls_do_not_migrate_at_once(postgres):
    """The second waits, then finds nothing to do."""

    async def work():
        databases = [Database(url) for url in [postgres.database()] * 3]
        try:
            await asyncio.gather(*[migrate.upgrade(database) for database in databases])
            assert await _tables(databases[0]) == {*metadata.tables, "alembic_version"}
        finally:
            for database in databases:
                await database.close()

    asyncio.run(work())


def test_a_table_that_is_busy_stops_a_migration_with_a_clear_error(postgres, monkeypatch):
    monkeypatch.setattr(migrate, "_PATIENCE", "SET LOCAL lock_timeout = '50ms'")

    async def work():
        database = Database(postgres.database())
        try:
            await migrate.upgrade(database, "0006")
            async with database.read() as reader:
                await reader.exec_driver_sql("SELECT count(*) FROM usage")
                with pytest.raises(DBAPIError, match="lock timeout"):
                    await migrate.upgrade(database)
            await migrate.upgrade(database)
        finally:
            await database.close()

    asyncio.run(work())


def test_a_step_that_fails_leaves_nothing_behind(tmp_path):
    async def work():
        database = Database(sqlite_url(tmp_path / "x.db"))
        try:
            async with database.write() as connection:
                await connection.exec_driver_sql("CREATE TABLE usage (id INTEGER)")
            with pytest.raises(Exception, match="already exists"):
                await migrate.upgrade(database)
            assert await _tables(database) == {"usage"}
        finally:
            await database.close()

    asyncio.run(work())


def test_the_schema_suits_postgresql():
    ddl = io.StringIO()
    for table in metadata.sorted_tables:
        ddl.write(str(CreateTable(table).compile(dialect=postgresql.dialect())))
        for index in table.indexes:
            ddl.write(str(CreateIndex(index).compile(dialect=postgresql.dialect())))
    assert "opened_ns BIGINT NOT NULL" in ddl.getvalue()
    assert "stream BOOLEAN DEFAULT false NOT NULL" in ddl.getvalue()


@pytest.mark.parametrize("url", ["nonsense", "mysql://h/d", "", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_is_none(url):
    with pytest.raises(StartupError, match="--database"):
        parse_url(url)


def test_a_password_is_never_shown():
    assert "hush" not in parse_url("postgresql://u:hush@h/d").render_as_string(hide_password=True)
