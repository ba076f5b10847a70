"""The last step of a batch: its results, from the database into objects. Done again from the start after a crash."""

import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from tokenworks.control.batches import rendering
from tokenworks.control.batches.rules import BATCH
from tokenworks.control.events import tell_ended
from tokenworks.control.objects.store import ObjectStore
from tokenworks.control.storage import batches, files
from tokenworks.control.storage.batches import Batch
from tokenworks.control.storage.database import Database
from tokenworks.control.storage.files import File
from tokenworks.control.storage.tables import batch_lines

RESULTS_SECONDS = 29 * 24 * 3600
"""How long the results of a message batch are kept."""
LINES = 500
BYTES = 4 * 1024 * 1024
"""Of results in memory at a time; a single one may be larger."""

Wanted = Callable[[Any], bool]


class Outputs:
    def __init__(self, database: Database, store: ObjectStore) -> None:
        self._database = database
        self._store = store

    async def write(self, batch: Batch, now_ns: int) -> None:
        """For a batch of which no line changes any more."""
        now = now_ns // 1_000_000_000
        async with self._database.write() as connection:
            named = await batches.get(connection, batch.id)
            assert named is not None  # noqa: S101 -- nothing removes a batch that has not ended
            ids = _file_ids(named)
            await batches.step(connection, batch.id, ("finalizing", "cancelling"), **ids)
        made = [await self._file(named, file_id, name, now_ns) for name, file_id in ids.items() if file_id is not None]
        values = {"ended_at": now, "finalizing_at": named.finalizing_at or now}

        def end(connection: Connection) -> None:
            if batches.end(connection, batch.id, named.outcome, values):
                files.add(connection, made)
                if batch.object == BATCH:
                    tell_ended(connection, batch.project_id, BATCH, batch.id, named.outcome, now_ns)

        await self._database.write_batch(end)

    async def _file(self, batch: Batch, id: str, name: str, now_ns: int) -> File:
        failed = name == "error_file_id"
        if batch.object == BATCH:
            wanted, render, purpose = (lambda line: _good(line) != failed), rendering.output_line, "batch_output"
            kept = batch.output_seconds
        else:
            wanted, render, purpose = (lambda _: True), rendering.message_result, "message_batch_results"
            kept = RESULTS_SECONDS
        lines = self._lines(batch, wanted)
        stored = await self._store.put(files.object_key(id), _rendered(batch, lines, render))
        filename = f"{batch.id}_{'error' if failed else 'output'}.jsonl"
        expires_at = None if kept is None else now_ns // 1_000_000_000 + kept
        return File(id, batch.project_id, purpose, filename, now_ns, expires_at, stored.size, stored.sha256)

    async def _lines(self, batch: Batch, wanted: Wanted) -> AsyncIterator[Any]:
        """In order of number; no more than BYTES of results at a time."""
        last = 0
        here = batch_lines.c.batch_id == batch.id
        columns = (batch_lines.c[name] for name in ("number", "custom_id", "state", "status", "body"))
        query = select(*columns).where(here).order_by(batch_lines.c.number)
        sizes = select(batch_lines.c.number, func.length(batch_lines.c.body).label("size")).where(here)
        while True:
            async with self._database.read() as connection:
                found = await connection.execute(
                    sizes.where(batch_lines.c.number > last).order_by(batch_lines.c.number).limit(LINES)
                )
                if (upto := _fitting(found.all())) is None:
                    return
                page = await connection.execute(query.where(batch_lines.c.number > last, batch_lines.c.number <= upto))
                rows = page.all()
            for row in rows:
                if wanted(row):
                    yield row
            last = upto


def _file_ids(batch: Batch) -> dict[str, str | None]:
    """Names of the files that there will be; those that an earlier try gave stand."""
    if batch.object == BATCH:
        needed = {"output_file_id": batch.completed > 0, "error_file_id": batch.total > batch.completed}
    else:
        needed = {"output_file_id": batch.total > 0}
    return {
        name: (getattr(batch, name) or f"file-{secrets.token_hex(12)}") if is_needed else None
        for name, is_needed in needed.items()
    }


def _good(line: Any) -> bool:
    return bool(line.state == "done" and 200 <= line.status < 300)


async def _rendered(
    batch: Batch, lines: AsyncIterator[Any], render: Callable[[Batch, Any], bytes]
) -> AsyncIterator[bytes]:
    async for line in lines:
        yield render(batch, line)


def _fitting(rows: Any) -> int | None:
    """The last number whose results still fit, at least one; None when there is no line."""
    total, upto = 0, None
    for row in rows:
        total += row.size or 0
        if upto is not None and total > BYTES:
            break
        upto = row.number
    return upto
