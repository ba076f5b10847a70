"""The engine and its transactions: `read`, `write` and `write_batch`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from tokenworks.control.startup import StartupError

T = TypeVar("T")

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}

POOL_SECONDS = 10.0
"""Until a call is refused because all connections are busy, as they are when the database stands still."""


async def _connect_postgresql(*given: Any, **options: Any) -> Any:
    """A server that cannot be reached is an error of the database like any other, not one of the network."""
    import asyncpg

    try:
        return await asyncpg.connect(*given, **options)
    except OSError as error:
        raise asyncpg.CannotConnectNowError(str(error) or "the connection timed out") from error


POSTGRESQL: dict[str, Any] = {
    "async_creator_fn": _connect_postgresql,
    "timeout": 10.0,
    # A peer that vanished without a word is noticed, here and (for its locks) at the server.
    "server_settings": {
        "application_name": "tokenworks control",
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
    },
}


class Database:
    """On SQLite the writers of this process take turns here, where the queue is fair, instead of in SQLite's own
    back-off; readers never wait (WAL)."""

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self._turn: AbstractAsyncContextManager[Any] = asyncio.Lock() if self.is_sqlite else nullcontext()
        self._writer, self._reader, self._batch_writer = _engines(self.url)
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
        async with self._turn, self._writer.begin() as connection:
            yield connection

    async def write_batch(self, work: Callable[[Connection], T]) -> T:
        """The same for many statements without a pause between them.

        The asynchronous SQLite driver changes threads for each step of each statement, which costs more than the
        statements; here the whole transaction runs in one thread.
        """
        if self._batch_writer is None:
            async with self._writer.begin() as connection:
                return await connection.run_sync(work)
        async with self._turn:
            return await asyncio.to_thread(_transaction, self._batch_writer, work)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        async with self._reader.connect() as connection:
            yield connection

    async def dedicated(self) -> AsyncConnection:
        """A connection for whoever keeps it, and closes it; each statement is a transaction."""
        connection = await self._writer.connect()
        return await connection.execution_options(isolation_level="AUTOCOMMIT")

    async def close(self) -> None:
        await self._reader.dispose()
        await self._writer.dispose()
        if self._batch_writer is not None:
            self._batch_writer.dispose()


def parse_url(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise StartupError(
            f"--database: not a URL such as {sqlite_url(Path('/data/control.db'))} or postgresql://user@host/name"
        ) from error
    backend = url.get_backend_name()
    if backend not in DRIVERS:
        raise StartupError(f"--database: {backend!r} is not supported; use one of {', '.join(sorted(DRIVERS))}")
    if backend == "sqlite" and url.database in (None, "", ":memory:"):
        raise StartupError(f"--database: name a file, as in {sqlite_url(Path('/data/control.db'))}")
    return url.set(drivername=DRIVERS[backend])


def sqlite_url(path: Path) -> str:
    return URL.create("sqlite", database=str(path)).render_as_string()


def _engines(url: URL) -> tuple[AsyncEngine, AsyncEngine, Engine | None]:
    """For writing, for reading, and for writing in a thread (SQLite only)."""
    if url.get_backend_name() != "sqlite":
        try:
            engine = create_async_engine(url, pool_pre_ping=True, pool_timeout=POOL_SECONDS, connect_args=POSTGRESQL)
        except ModuleNotFoundError as error:
            raise StartupError(
                f"--database: {url.get_backend_name()} needs the package {error.name}: pip install tokenworks[postgres]"
            ) from error
        event.listen(engine.sync_engine, "connect", _configure_postgresql)
        event.listen(engine.sync_engine, "handle_error", _call_it_a_database_error)
        return engine, engine, None
    writer = create_async_engine(url, pool_size=1, max_overflow=0)
    reader = create_async_engine(url, pool_size=2, max_overflow=2)
    batch_writer = create_engine(url.set(drivername="sqlite"), pool_size=1, max_overflow=0)
    for each in (writer.sync_engine, reader.sync_engine, batch_writer):
        event.listen(each, "connect", _configure_sqlite)
    # The driver's own BEGIN comes late and never before DDL, so a migration killed half way would stay half done.
    for each in (writer.sync_engine, batch_writer):
        event.listen(each, "begin", _begin_immediate)
    return writer, reader, batch_writer


def _transaction(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


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


def _configure_postgresql(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # A gateway deletes what control acknowledged, so a commit must be on disk, whatever the server's default is.
    cursor.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    cursor.close()
    connection.commit()


def _call_it_a_database_error(context: ExceptionContext) -> None:
    """The driver lets those of the network through when a connection breaks in the middle of a statement."""
    error = context.original_exception
    if isinstance(error, OSError):
        raise OperationalError(context.statement, None, error, connection_invalidated=True) from error


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def describe(error: Exception) -> str:
    """One line for the terminal, without SQL."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
