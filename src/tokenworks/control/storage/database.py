"""The engine and its transactions: `read()` and `write()`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from tokenworks.control.startup import StartupError

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


class Database:
    """On SQLite all writers share one connection: its pool is a fair queue, so that a writer never waits in
    SQLite's own back-off behind another writer of this process. Readers never wait (WAL)."""

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self._writer, self._reader = _engines(self.url)
        self.dialect = self._writer.dialect

    @property
    def name(self) -> str:
        """For messages: never shows the password."""
        return self.url.database or "" if self.is_sqlite else self.url.render_as_string(hide_password=True)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end, rolled back on an exception."""
        async with self._writer.begin() as connection:
            yield connection

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        async with self._reader.connect() as connection:
            yield connection

    async def close(self) -> None:
        await self._reader.dispose()
        await self._writer.dispose()


def parse_url(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise StartupError(
            "--database: not a database URL, for example sqlite:////var/lib/tokenworks/control.db or postgresql://user@host/name"
        ) from error
    driver = DRIVERS.get(url.get_backend_name())
    if driver is None:
        raise StartupError(
            f"--database: {url.get_backend_name()!r} is not supported; use one of {', '.join(sorted(DRIVERS))}"
        )
    return url.set(drivername=driver)


def sqlite_url(path: Path) -> str:
    return URL.create("sqlite", database=str(path)).render_as_string()


def _engines(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    if url.get_backend_name() != "sqlite":
        engine = create_async_engine(url, pool_pre_ping=True)
        return engine, engine
    writer = create_async_engine(url, pool_size=1, max_overflow=0)
    reader = create_async_engine(url, pool_size=2, max_overflow=2)
    event.listen(writer.sync_engine, "connect", _configure_sqlite)
    event.listen(reader.sync_engine, "connect", _configure_sqlite)
    # The driver's own BEGIN comes late and never before DDL, so a migration killed half way would stay half done.
    event.listen(writer.sync_engine, "begin", _begin_immediate)
    return writer, reader


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA busy_timeout = 10000")
    cursor.execute("PRAGMA journal_mode = WAL")
    # A gateway deletes what control acknowledged, so an acknowledged commit must survive a power cut.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA cache_size = -32768")
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def describe(error: Exception) -> str:
    """One line for the terminal, without SQL."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
