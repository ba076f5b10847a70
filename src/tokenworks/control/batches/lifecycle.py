"""What moves batches on when nobody calls: check, expire, write out; and what removes bytes that nobody needs.

One process runs these loops. Each step starts again from what the database says, so they may die at any moment.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from tokenworks.control.batches import validation
from tokenworks.control.batches.outputs import Outputs
from tokenworks.control.batches.validation import Validation
from tokenworks.control.objects.store import ObjectDamaged, ObjectMissing, ObjectStore, StoreError
from tokenworks.control.storage import batch_lines, batches, files
from tokenworks.control.storage.batches import Batch
from tokenworks.control.storage.database import Database, describe
from tokenworks.control.storage.files import ACTIVE
from tokenworks.core.clock import Clock
from tokenworks.snapshot.publisher import Publisher

STEP_SECONDS = 0.5
SWEEP_SECONDS = 10.0
AT_ONCE = 4
"""Batches that are checked or written out at the same time."""

log = logging.getLogger(__name__)


class Lifecycle:
    def __init__(self, database: Database, store: ObjectStore, publisher: Publisher, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._validation = Validation(database, store, publisher)
        self._outputs = Outputs(database, store)
        self._wake = asyncio.Event()
        self._busy: dict[str, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """There is something to do: do not wait for the next look."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        sweeping = asyncio.create_task(self._sweep_often(), name="files-sweep")
        try:
            while True:
                self._wake.clear()
                await self._guarded(self._step(), "batches")
                try:
                    async with asyncio.timeout(STEP_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            tasks = [sweeping, *self._busy.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _step(self) -> None:
        async with self._database.read() as connection:
            found = await batches.active(connection)
        if not found:
            return
        ids, now_ns = [batch.id for batch in found], self._clock.now_ns()
        await self._database.write_batch(lambda connection: batch_lines.release_expired(connection, ids, now_ns))
        for batch in found:
            if batch.id not in self._busy and len(self._busy) < AT_ONCE and self._needs_work(batch):
                self._busy[batch.id] = asyncio.create_task(self._work(batch.id), name=batch.id)

    def _needs_work(self, batch: Batch) -> bool:
        return bool(batch.status != "in_progress" or batch.expires_at <= self._now())

    async def _work(self, batch_id: str) -> None:
        try:
            await self._guarded(self._move(batch_id), batch_id)
        except Exception:  # a bug that one batch brings out must not hold up all others
            log.exception("%s cannot be moved on", batch_id)
        finally:
            del self._busy[batch_id]

    async def _move(self, batch_id: str) -> None:
        async with self._database.read() as connection:
            batch = await batches.get(connection, batch_id)  # what `_step` saw may be over by now
        if batch is None or not self._needs_work(batch):
            return
        if batch.in_progress_at is None:  # also when it is cancelled already: each line must be accounted for
            try:
                await self._validation.run(batch, self._now())
            except (ObjectMissing, ObjectDamaged) as error:
                log.error("%s: %s", batch.id, error)
                await validation.fail(self._database, batch, "The input file cannot be read.", self._now())
            self.wake()
        elif batch.status == "in_progress":
            values = {"status": "finalizing", "outcome": "expired", "finalizing_at": self._now()}
            async with self._database.write() as connection:
                await batches.step(connection, batch.id, ("in_progress",), **values)
            self.wake()
        elif batch.status not in ACTIVE:
            return
        elif await self._database.write_batch(lambda connection: batch_lines.leased(connection, batch_id)) == 0:
            await self._outputs.write(batch, self._clock.now_ns())

    async def _sweep_often(self) -> None:
        while True:
            await self._guarded(self._sweep(), "files")
            await asyncio.sleep(SWEEP_SECONDS)

    async def _sweep(self) -> None:
        async with self._database.read() as connection:
            ids = await files.garbage(connection, self._now())
        for file_id in ids:
            await self._store.delete(files.object_key(file_id))
            async with self._database.write() as connection:
                await files.forget(connection, file_id)

    async def _guarded(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """A database or store that is away now is asked again at the next step."""
        try:
            await work
        except SQLAlchemyError as error:
            log.error("%s: the database: %s", what, describe(error))
        except StoreError as error:
            log.error("%s: the object store: %s", what, error)

    def _now(self) -> int:
        return self._clock.now_ns() // 1_000_000_000
