"""From an input object to lines that can be leased, or to the errors that say why not. Restartable at any moment."""

import hashlib
import zlib
from typing import Any

from tokenworks.batches.records import LARGEST_LINE
from tokenworks.control.batches.rules import BATCH, MOST_BYTES, Checker
from tokenworks.control.batches.splitting import Line, LineSplitter
from tokenworks.control.events import tell_ended
from tokenworks.control.objects.store import ObjectDamaged, ObjectStore
from tokenworks.control.storage import api_keys, batch_lines, batches, files
from tokenworks.control.storage.batches import Batch
from tokenworks.control.storage.database import Database
from tokenworks.control.storage.files import File
from tokenworks.snapshot.publisher import Publisher

ROWS = 1000
UNCHECKED = ("validating", "cancelling")
"""A batch may be cancelled while it is checked."""


class Validation:
    def __init__(self, database: Database, store: ObjectStore, publisher: Publisher) -> None:
        self._database = database
        self._store = store
        self._publisher = publisher

    async def run(self, batch: Batch, now: int) -> None:
        async with self._database.read() as connection:
            file = await files.find_any(connection, batch.input_file_id)
            key = await api_keys.find(connection, batch.key_id)
        assert file is not None and key is not None  # noqa: S101 -- neither goes while a batch uses it
        checker = Checker(batch.object, batch.endpoint, self._models(batch, key.models))
        if (file.bytes or 0) > MOST_BYTES[batch.object]:
            message = f"The input has {file.bytes} bytes; at most {MOST_BYTES[batch.object]} are taken."
            checker.errors = [{"code": "file_too_large", "message": message, "param": "input_file_id", "line": None}]
        elif await self._database.write_batch(lambda connection: batch_lines.start_over(connection, batch.id)):
            await self._read(batch.id, file, checker)
            checker.finish()
        else:
            return
        await self._end(batch, checker, now)

    def _models(self, batch: Batch, allowed: tuple[str, ...] | None) -> frozenset[str] | None:
        if batch.object != BATCH:
            return None
        state = self._publisher.state
        known = frozenset({*state.models, *state.aliases})
        return known if allowed is None else known & frozenset(allowed)

    async def _read(self, batch_id: str, file: File, checker: Checker) -> None:
        """Put in all sound lines."""
        splitter, digest = LineSplitter(LARGEST_LINE), hashlib.sha256()
        rows: list[dict[str, Any]] = []
        async for chunk in self._store.get(file.key):
            digest.update(chunk)
            rows += [row for line in splitter.feed(chunk) if (row := _row(batch_id, line, checker))]
            if len(rows) >= ROWS:
                await self._add(rows, checker)
                rows = []
        rows += [row for line in splitter.close() if (row := _row(batch_id, line, checker))]
        await self._add(rows, checker)
        if digest.hexdigest() != file.sha256:
            raise ObjectDamaged(f"{file.key} is not what was uploaded")

    async def _add(self, rows: list[dict[str, Any]], checker: Checker) -> None:
        if rows and not checker.errors:
            await self._database.write_batch(lambda connection: batch_lines.add(connection, rows))

    async def _end(self, batch: Batch, checker: Checker, now: int) -> None:
        if checker.errors:
            await _fail(self._database, batch, checker.errors, now)
            return
        model = checker.seen_models.pop() if len(checker.seen_models) == 1 else None
        values = {"in_progress_at": now, "total": checker.count, "model": model}
        async with self._database.write() as connection:
            if not await batches.step(connection, batch.id, ("validating",), status="in_progress", **values):
                await batches.step(connection, batch.id, ("cancelling",), **values)


async def fail(database: Database, batch: Batch, message: str, now: int) -> None:
    """The input cannot be read, now or ever."""
    errors = [{"code": "input_unreadable", "message": message, "param": "input_file_id", "line": None}]
    await _fail(database, batch, errors, now)


async def _fail(database: Database, batch: Batch, errors: list[dict[str, Any]], now: int) -> None:
    await database.write_batch(lambda connection: batch_lines.clear(connection, batch.id))
    async with database.write() as connection:
        failed = await batches.step(connection, batch.id, UNCHECKED, status="failed", errors=errors, ended_at=now)
        if failed and batch.object == BATCH:
            told = (batch.project_id, BATCH, batch.id, "failed", now * 1_000_000_000)
            await connection.run_sync(tell_ended, *told)


def _row(batch_id: str, line: Line, checker: Checker) -> dict[str, Any] | None:
    custom_id = checker.check(line)
    if custom_id is None or line.text is None:
        return None
    place = {"number": line.number, "start": line.start, "length": line.length, "crc32": zlib.crc32(line.text)}
    return {"batch_id": batch_id, "custom_id": custom_id, **place}
