"""Files and batches as one part of control: what their routes work with, and the loops that run beside."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tokenworks.control.batches.leasing import Leasing
from tokenworks.control.batches.lifecycle import Lifecycle
from tokenworks.control.files.uploads import Uploads
from tokenworks.control.objects.store import ObjectStore
from tokenworks.control.storage.database import Database
from tokenworks.core.clock import Clock
from tokenworks.snapshot.publisher import Publisher


class Objects:
    def __init__(self, database: Database, store: ObjectStore, publisher: Publisher, clock: Clock) -> None:
        self.store = store
        self.uploads = Uploads(database, store, clock)
        self.lifecycle = Lifecycle(database, store, publisher, clock)
        self.leasing = Leasing(database, store, self.lifecycle, clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.lifecycle.run(), name="batches")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self.store.close()
