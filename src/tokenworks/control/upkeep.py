"""What the tables of usage need now and then: months made ahead, lost attempts settled, old attempts removed."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from tokenworks.control.storage import lost, partitions
from tokenworks.control.storage.database import Database, describe
from tokenworks.core.clock import Clock

STEP_SECONDS = 60.0
AT_ONCE = 1_000
"""Rows of one transaction, so that ingest never waits long behind one."""
_NANO = 1_000_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """In seconds. `lost_after`: an attempt that has been open for so long belongs to a gateway that does not come
    back; it must be longer than any attempt may take. `keep`: how long attempts are kept; None: for ever. Their sums
    by the hour and by the day, and the ledger, are always kept."""

    lost_after: int = 86_400
    keep: int | None = None


class Upkeep:
    def __init__(self, database: Database, clock: Clock, terms: Terms) -> None:
        self._database = database
        self._clock = clock
        self._terms = terms

    async def step(self) -> None:
        now_ns = self._clock.now_ns()
        now, terms = now_ns // _NANO, self._terms
        await self._database.write_batch(lambda connection: partitions.make(connection, now))
        settled = await self._in_pieces(
            lambda connection: lost.settle(connection, now - terms.lost_after, now_ns, AT_ONCE)
        )
        if settled:
            log.warning("%d attempts were open for %d s: settled as lost", settled, terms.lost_after)
        if terms.keep is None:
            return
        before = now - terms.keep
        dropped = await self._database.write_batch(lambda connection: partitions.drop(connection, before))
        deleted = await self._in_pieces(lambda connection: partitions.delete(connection, before, AT_ONCE))
        if dropped or deleted:
            log.info("usage older than %d s is removed: %s and %d attempts", terms.keep, dropped, deleted)

    async def _in_pieces(self, work: Callable[[Connection], int]) -> int:
        total = 0
        while count := await self._database.write_batch(work):
            total += count
        return total

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._loop(), name="upkeep")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _loop(self) -> None:
        while True:
            try:
                await self.step()
            except SQLAlchemyError as error:
                log.error("the tables of usage cannot be kept in order: %s", describe(error))
            await asyncio.sleep(STEP_SECONDS)
