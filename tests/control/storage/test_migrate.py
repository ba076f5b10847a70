"""Up, down, up again; and the migrations make exactly what the tables say."""

import asyncio
import io

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from tokenworks.control.startup import StartupError
from tokenworks.control.storage import migrate
from tokenworks.control.storage.database import Database, parse_url, sqlite_url
from tokenworks.control.storage.tables import metadata


async def _tables(database):
    async with database.read() as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


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
            return await connection.run_sync(
                lambda sync: compare_metadata(MigrationContext.configure(sync, opts={"compare_type": True}), metadata)
            )

    assert with_database(work) == []


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
