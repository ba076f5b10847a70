"""Reports usage to the payment provider: what was charged, in whole cents, the rest with the next report.

A report is written down before it is sent. Its id names the amount told before it, so that two processes, or one that
died in between, make and send the same report, which counts once.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from tokenworks.control.ledger.payments.base import (
    NANO_PER_CENT,
    MeterEvent,
    PaymentProvider,
    PaymentRefused,
    PaymentUnavailable,
)
from tokenworks.control.storage import payments
from tokenworks.control.storage.database import Database, describe
from tokenworks.core.clock import Clock

EVERY_SECONDS = 60.0
AT_ONCE = 100

log = logging.getLogger(__name__)


class Meter:
    def __init__(self, database: Database, provider: PaymentProvider, clock: Clock) -> None:
        self._database = database
        self._provider = provider
        self._clock = clock

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        if not self._provider.meters:
            yield
            return
        task = asyncio.create_task(self._loop(), name="usage-meter")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def report(self) -> int:
        """Write down what is new, send what is not sent. Returns how many reports were taken."""
        now = self._clock.now_ns() // 1_000_000_000
        async with self._database.write() as connection:
            await connection.run_sync(_write_down, now)
        async with self._database.read() as connection:
            waiting = await connection.run_sync(payments.unsent, AT_ONCE)
        for name, customer, amount, at in waiting:
            await self._provider.report(MeterEvent(name, customer, amount // NANO_PER_CENT, at))
            async with self._database.write() as connection:
                await connection.run_sync(payments.sent, name, now)
        return len(waiting)

    async def _loop(self) -> None:
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.report()
            except (PaymentRefused, PaymentUnavailable) as error:
                log.error("usage cannot be reported to the payment provider: %s", error)
            except SQLAlchemyError as error:
                log.error("usage to be reported cannot be read or noted: %s", describe(error))


def _write_down(connection: Connection, now: int) -> None:
    for each in payments.unreported(connection):
        cents = each.amount // NANO_PER_CENT
        if cents > 0:
            name = f"{each.organization_id}-{each.told}"
            payments.add_meter_event(connection, name, each.organization_id, cents * NANO_PER_CENT, now)
