"""The lease call: results in, lines out. What is read from the object store for it is checked line by line."""

import logging
import zlib

import msgspec
from sqlalchemy import exists, or_, select

from tokenworks.batches.records import LeaseAnswer, LeaseCall, LineRecord
from tokenworks.control.batches.lifecycle import Lifecycle
from tokenworks.control.batches.rules import request_id
from tokenworks.control.objects.store import ObjectDamaged, ObjectMissing, ObjectStore
from tokenworks.control.storage import batch_lines
from tokenworks.control.storage import files as file_rows
from tokenworks.control.storage.batch_lines import Leased
from tokenworks.control.storage.database import Database
from tokenworks.control.storage.tables import batch_lines as lines_table
from tokenworks.control.storage.tables import batches as batches_table
from tokenworks.core.clock import Clock

log = logging.getLogger(__name__)


class _Line(msgspec.Struct):
    body: msgspec.Raw


_DECODE = msgspec.json.Decoder(_Line).decode


class Leasing:
    def __init__(self, database: Database, store: ObjectStore, lifecycle: Lifecycle, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._lifecycle = lifecycle
        self._clock = clock

    async def take(self, call: LeaseCall) -> LeaseAnswer:
        """Its transaction is committed when this returns. StoreError: the lines are free again at the next call."""
        now_ns = self._clock.now_ns()
        if not call.results and not call.returned and not await self._is_work(call.gateway_id):
            return LeaseAnswer()
        leased, ended = await self._database.write_batch(lambda connection: batch_lines.take(connection, call, now_ns))
        if ended:
            self._lifecycle.wake()
        lines: list[LineRecord] = []
        for piece in _pieces(leased):
            lines += await self._read(piece)
        return LeaseAnswer(tuple(lines))

    async def _is_work(self, gateway_id: str) -> bool:
        """Asked by every idle gateway every second, so it must not queue behind writers."""
        runs = exists().where(batches_table.c.status == "in_progress")
        held = exists().where(lines_table.c.gateway_id == gateway_id)
        async with self._database.read() as connection:
            return bool((await connection.execute(select(or_(runs, held)))).scalar())

    async def _read(self, piece: list[Leased]) -> list[LineRecord]:
        """Neighbours in one object, with one request to the store."""
        first, last = piece[0].line, piece[-1].line
        key = file_rows.object_key(piece[0].batch.input_file_id)
        data = bytearray()
        try:
            async for chunk in self._store.get(key, first.start, last.start + last.length - first.start):
                data += chunk
        except (ObjectMissing, ObjectDamaged) as error:
            log.error("the input of %s cannot be read: %s", first.batch_id, error)
        found = []
        for leased in piece:
            begin = leased.line.start - first.start
            text = bytes(data[begin : begin + leased.line.length])
            if zlib.crc32(text) == leased.line.crc32:
                found.append(_record(leased, text))
            else:
                await self._give_up(leased)
        return found

    async def _give_up(self, leased: Leased) -> None:
        line, now_ns = (leased.line.batch_id, leased.line.number), self._clock.now_ns()
        log.error("line %d of %s is not what was uploaded", line[1], line[0])
        message = "The request could not be read any more."
        await self._database.write_batch(lambda connection: batch_lines.give_up(connection, line, message, now_ns))
        self._lifecycle.wake()


def _record(leased: Leased, text: bytes) -> LineRecord:
    line, batch = leased.line, leased.batch
    return LineRecord(
        batch=batch.id,
        number=line.number,
        run=line.run + 1,
        failures=line.failures,
        request_id=request_id(batch.id, batch.created_ns, line.number),
        endpoint=batch.endpoint,
        key_digest=batch.key_digest,
        body=bytes(_DECODE(text).body),
    )


def _pieces(leased: list[Leased]) -> list[list[Leased]]:
    """Cut where a line does not follow its predecessor in the same object (but for a line's end and blanks)."""
    pieces: list[list[Leased]] = []
    for each in leased:
        before = pieces[-1][-1] if pieces else None
        if before is not None and before.batch.id == each.batch.id:
            gap = each.line.start - before.line.start - before.line.length
            if 0 <= gap <= 1024:
                pieces[-1].append(each)
                continue
        pieces.append([each])
    return pieces
