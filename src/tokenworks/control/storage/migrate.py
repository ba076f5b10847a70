"""Brings a database to the newest schema, or to a named revision, with Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import inspect, text
from sqlalchemy.engine import Connection

from tokenworks.control.startup import StartupError
from tokenworks.control.storage import online
from tokenworks.control.storage.database import Database
from tokenworks.control.storage.online import Index

MIGRATIONS = Path(__file__).parent / "migrations"
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(8317001)"
_PATIENCE = f"SET LOCAL lock_timeout = '{online.LOCK_SECONDS}s'"


async def upgrade(database: Database, revision: str = "head") -> None:
    """All steps in one transaction: a start that dies half way leaves the database as it was.

    On PostgreSQL one process migrates at a time, and gives up (DBAPIError) rather than have queries of the others
    queue behind a table lock that it cannot get. Indexes that migrations declare follow (online.py).
    """
    async with database.write() as connection:
        await connection.run_sync(_upgrade, revision)
    if not database.is_sqlite and (indexes := declared(revision)):
        await online.build(database, indexes)


async def downgrade(database: Database, revision: str) -> None:
    async with database.write() as connection:
        await connection.run_sync(_downgrade, revision)


def declared(revision: str = "head") -> list[Index]:
    """What migrations up to this one declare as `INDEXES`, the oldest first."""
    steps = list(_scripts().iterate_revisions(revision, "base"))
    return [index for step in reversed(steps) for index in getattr(step.module, "INDEXES", ())]


def _upgrade(connection: Connection, revision: str) -> None:
    _take_turn(connection)
    current = _current(connection)
    if revision == "head" and current == _scripts().get_current_head():
        return
    try:
        command.upgrade(_config(connection), revision)
    except CommandError as error:
        raise StartupError(
            f"the database has schema revision {current}, which this version does not know; "
            "install the version of Tokenworks that wrote it, or a newer one"
        ) from error
    if connection.dialect.name == "sqlite":
        for index in declared(revision):
            connection.exec_driver_sql(index.create("IF NOT EXISTS "))


def _downgrade(connection: Connection, revision: str) -> None:
    _take_turn(connection)
    command.downgrade(_config(connection), revision)


def _take_turn(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_ONE_AT_A_TIME)
        connection.exec_driver_sql(_PATIENCE)


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(MIGRATIONS))


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
