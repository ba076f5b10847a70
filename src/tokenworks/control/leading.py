"""One control at a time on one PostgreSQL: the others stand by and take over when it is gone.

What gateways are told is kept in one process's memory, so only one may answer. It holds an advisory lock on a
connection of its own, which the server gives up when that connection ends, however it ends. SQLite needs none of this:
its directory has a lock.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.database import Database, describe

LOOK_SECONDS = 0.5
_TAKE = "SELECT pg_try_advisory_lock(8317002)"

log = logging.getLogger(__name__)


class Leadership:
    """`take` before anything else touches the database; `held` while it is served."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: AsyncConnection | None = None

    async def take(self) -> None:
        """Returns once no other control is in charge. SQLAlchemyError or OSError when the database is away."""
        if self._database.is_sqlite:
            return
        waited = False
        while not await self._try():
            if not waited:
                log.warning("another control is in charge of %s: standing by", self._database.name)
            waited = True
            await asyncio.sleep(LOOK_SECONDS)
        if waited:
            log.warning("the other control is gone: taking over")

    @asynccontextmanager
    async def held(self, lost: Callable[[], None]) -> AsyncIterator[None]:
        """`lost` is called when another one has taken over, which can be after the database was away."""
        task = None if self._connection is None else asyncio.create_task(self._watch(lost), name="leadership")
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await self._forget()

    async def _watch(self, lost: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if self._connection is not None:
                    await self._connection.exec_driver_sql("SELECT 1")
                elif not await self._try():
                    log.critical("another control has taken over while the database was away: stopping")
                    return lost()
            except (SQLAlchemyError, OSError) as error:
                log.warning("the lock of the control in charge is lost with its connection: %s", describe(error))
                await self._forget()

    async def _try(self) -> bool:
        if self._connection is None:
            self._connection = await self._database.dedicated()
        if (await self._connection.exec_driver_sql(_TAKE)).scalar():
            return True
        await self._forget()
        return False

    async def _forget(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError, OSError):
                await connection.invalidate()
                await connection.close()
