"""Looks at what is spent of every budget, whenever something was: for gateways (the snapshot) and for alerts.

Gateways enforce hard budgets by themselves. What they hear from here is what a limit store that lost its counts starts
from again (docs/limits.md).
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.events import BUDGET_THRESHOLD, threshold_reached
from tokenworks.control.storage import deliveries, endpoints, limits, spending
from tokenworks.control.storage.database import Database, describe
from tokenworks.control.storage.limits import Limit
from tokenworks.core.clock import Clock
from tokenworks.core.windows import PERIODS, beginning, epoch_at
from tokenworks.snapshot.records import LimitRecord, SpendRecord

LOOK_SECONDS = 0.5
"""Between two looks while something is spent."""
IDLE_SECONDS = 5.0
"""Without news: a period may have ended, or another control has taken usage in."""
_NANO = 1_000_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Spent:
    """`page`: how far the organization's book was written then; None: looked at anew every time."""

    record: SpendRecord
    page: int | None


class Budgets:
    """`announce` gets what is spent of every budget that gateways enforce; `deliver` wakes the webhooks."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        announce: Callable[[Iterable[SpendRecord], Mapping[str, int]], None],
        deliver: Callable[[], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._announce = announce
        self._deliver = deliver
        self._known: dict[str, Spent] = {}
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Something may have been spent, or a budget changed."""
        self._woken.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._loop(), name="budgets")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def look(self) -> None:
        """Once: tell what is spent, and note each threshold that was passed since."""
        now_ns = self._clock.now_ns()
        async with self._database.read() as connection:
            found = await limits.budgets(connection)
            pages = await spending.pages(connection, {each.organization_id for each in found})
            known = {each.id: await self._spent(connection, each, pages, now_ns // _NANO) for each in found}
            # After the sums: of a record that came in between, the sums know nothing, and its gateway must not either.
            shipped = await spending.shipped(connection)
            due = [each for each in found if await self._is_due(connection, each, known[each.id].record)]
        self._known = known
        self._announce((known[each.id].record for each in found if not each.terms.alert_only), shipped)
        for budget in due:
            await self._alert(budget, known[budget.id].record, now_ns)

    async def spent(self, connection: AsyncConnection, budget: Limit) -> SpendRecord:
        """Of the current period, as of now."""
        return (await self._spent(connection, budget, {}, self._clock.now_ns() // _NANO)).record

    async def _loop(self) -> None:
        while True:
            try:
                await self.look()
            except SQLAlchemyError as error:
                log.error("budgets cannot be looked at: %s", describe(error))
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._woken.wait()
            self._woken.clear()

    async def _spent(self, connection: AsyncConnection, budget: Limit, pages: dict[str, int], now: int) -> Spent:
        record = budget.record
        begins = period_began(record, now)
        page, known = pages.get(budget.organization_id), self._known.get(budget.id)
        if known is not None and page is not None and known.page == page and known.record.begins == begins:
            return known
        total = await spending.spent(connection, record, budget.organization_id, begins)
        return Spent(SpendRecord(record.name, begins, total), page)

    async def _is_due(self, connection: AsyncConnection, budget: Limit, spend: SpendRecord) -> bool:
        reached = _reached(budget, spend.spent)
        return bool(reached) and not reached <= await spending.passed(connection, budget.id, spend.begins)

    async def _alert(self, budget: Limit, spend: SpendRecord, now_ns: int) -> None:
        now = now_ns // _NANO
        async with self._database.write() as connection:
            told = await endpoints.hearing(connection, budget.organization_id, BUDGET_THRESHOLD)
            for threshold in sorted(_reached(budget, spend.spent)):
                if not await spending.passing(
                    connection, budget.id, spend.begins, threshold, spent=spend.spent, now_ns=now_ns
                ):
                    continue
                log.warning("%s has reached %d %% of its budget", budget.record.id, threshold)
                event, body = threshold_reached(budget, threshold, spend.spent, spend.begins, now)
                for endpoint in told:
                    group = f"{event}_{endpoint.id}"
                    await deliveries.add(
                        connection, group, endpoint.id, [BUDGET_THRESHOLD], endpoint.url, body, now_ns=now_ns
                    )
        self._deliver()


def period_began(record: LimitRecord, now: int) -> int:
    """Unix seconds; 0 for a total."""
    window = PERIODS[record.period] if record.period else record.window
    return beginning(epoch_at(now, window, record.offset), window, record.offset)


def _reached(budget: Limit, spent: int) -> set[int]:
    return {each for each in budget.terms.thresholds if spent * 100 >= budget.record.limit * each}
