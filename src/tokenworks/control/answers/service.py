"""What happens to answers: saves, cancellations, lost gateways, forgetting; and which webhooks each causes."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.answers.records import RESPONSE, AnswerRecord, Save, Saved
from tokenworks.control.answers import endings
from tokenworks.control.events import tell_ended
from tokenworks.control.storage import answers, deliveries
from tokenworks.control.storage.database import Database, describe
from tokenworks.core.clock import Clock
from tokenworks.core.errors import NotFound

EXPIRY_SECONDS = 1.0
FORGET_SECONDS = 60.0
FORGOTTEN_AT_ONCE = 500
_NANO = 1_000_000_000

log = logging.getLogger(__name__)


class Answers:
    """`due` is called when a webhook is waiting."""

    def __init__(self, database: Database, clock: Clock, due: Callable[[], None]) -> None:
        self._database = database
        self._clock = clock
        self._due = due

    async def save(self, id: str, save: Save) -> Saved:
        """Idempotent: a save whose reply got lost is sent again."""
        now_ns = self._clock.now_ns()
        try:
            async with self._database.write() as connection:
                saved, events, url = await self._save(connection, id, save, now_ns)
                if url is not None:
                    await deliveries.add(connection, id, save.project_id, events, url, save.body, now_ns=now_ns)
        except IntegrityError as error:
            raise NotFound("The id is another project's, or the project does not exist.") from error
        if events:
            self._due()
        return saved

    async def _save(
        self, connection: AsyncConnection, id: str, save: Save, now_ns: int
    ) -> tuple[Saved, list[str], str | None]:
        """(what stands, the webhooks' events, where they go)"""
        row = await answers.locked(connection, save.project_id, save.kind, id)
        if row is None:
            if not save.create:
                return Saved("deleted", True), [], None
            await answers.create(connection, id, save, now_ns)
            hook = save.webhook
            happened = ["start", *(["completed"] if save.ended else [])]
            wanted = [] if hook is None else [event for event in happened if event in hook.events]
            return Saved(save.status, save.ended), wanted, hook.url if hook and wanted else None
        if row.ended:
            return Saved(row.status, True), [], None
        await answers.change(connection, id, row.event_count, save, now_ns)
        if save.ended:
            await self._tell_ended(connection, save.project_id, save.kind, id, save.status, now_ns)
        happened = [*save.progress, *(["completed"] if save.ended else [])]
        wanted = [event for event in happened if event in (row.webhook_events or ())]
        return Saved(save.status, save.ended), wanted, row.webhook_url if wanted else None

    async def cancel(self, project_id: str, kind: str, id: str) -> AnswerRecord | None:
        """What it is then; one that has ended stays as it is. None when there is none."""
        now_ns = self._clock.now_ns()
        async with self._database.write() as connection:
            row = await answers.locked(connection, project_id, kind, id)
            if row is not None and not row.ended:
                await self._end(connection, row, *endings.cancelled(kind, row.body, now_ns / _NANO))
            record = await answers.find(connection, project_id, kind, id, now_ns // _NANO)
        self._due()
        return record

    async def expire(self) -> None:
        """Those whose gateway has not been heard of."""
        now_ns = self._clock.now_ns()
        async with self._database.read() as connection:
            if not await answers.abandoned(connection, now_ns):
                return
        async with self._database.write() as connection:
            for row in await answers.abandoned(connection, now_ns, lock=True):
                log.warning("%s %s is lost: its gateway saved nothing within its lease", row.kind, row.id)
                await self._end(connection, row, *endings.lost(row.kind, row.body, now_ns / _NANO))
        self._due()

    async def forget(self) -> None:
        """Those that were kept long enough."""
        now = self._clock.now_ns() // _NANO
        count = FORGOTTEN_AT_ONCE
        while count == FORGOTTEN_AT_ONCE:
            async with self._database.write() as connection:
                count = await answers.remove_expired(connection, now, FORGOTTEN_AT_ONCE)

    async def _end(self, connection: AsyncConnection, row: Row[Any], status: str, body: bytes) -> None:
        now_ns = self._clock.now_ns()
        await answers.end(connection, row.id, status, body)
        await self._tell_ended(connection, row.project_id, row.kind, row.id, status, now_ns)
        if row.webhook_url is not None and "completed" in (row.webhook_events or ()):
            told = (row.id, row.project_id, ["completed"], row.webhook_url, body)
            await deliveries.add(connection, *told, now_ns=now_ns)

    async def _tell_ended(
        self, connection: AsyncConnection, project_id: str, kind: str, id: str, status: str, now_ns: int
    ) -> None:
        """Webhook endpoints hear of responses that were there before they ended: those in the background."""
        if kind == RESPONSE:
            await connection.run_sync(tell_ended, project_id, kind, id, status, now_ns)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Expires and forgets. Leases that ran out while control was away begin anew."""
        async with self._database.write() as connection:
            await answers.renew_all(connection, self._clock.now_ns())
        task = asyncio.create_task(self._loop(), name="answers-expiry")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _loop(self) -> None:
        forgotten = 0.0
        while True:
            await asyncio.sleep(EXPIRY_SECONDS)
            try:
                await self.expire()
                if self._clock.monotonic() - forgotten > FORGET_SECONDS:
                    await self.forget()
                    forgotten = self._clock.monotonic()
            except SQLAlchemyError as error:
                log.error("answers cannot be expired: %s", describe(error))
