"""One shipped batch: one transaction, which also moves the gateway's position. See docs/journal.md."""

import logging
from collections.abc import Callable

import msgspec
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from tokenworks.control.storage import attempts
from tokenworks.control.storage.attempts import AttemptWriter
from tokenworks.control.storage.database import Database
from tokenworks.core.errors import InvalidRequest
from tokenworks.journal.framing import FrameError, read_batch
from tokenworks.journal.records import Record

log = logging.getLogger(__name__)


class JournalIngest:
    """`taken` is called after every batch that was written."""

    def __init__(self, database: Database, taken: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._taken = taken
        self._writer = AttemptWriter(database.dialect)

    async def take(self, gateway_id: str, first: int, oldest: bool, body: bytes) -> int:
        """Returns the number of the record that control wants next.

        Every batch is written, for that is idempotent; the position moves only over what is contiguous. `oldest`
        says that the gateway has nothing before `first`, so there is nothing to wait for.
        """
        try:
            records = read_batch(body)
        except FrameError as error:
            raise InvalidRequest(str(error), code="journal_batch") from error
        try:
            return await self._write(gateway_id, first, oldest, records, len(records))
        except (OverflowError, DBAPIError):
            sound = [record for record in records if attempts.storable(record)]
            if len(sound) == len(records):
                raise
            self._report(gateway_id, records)
            return await self._write(gateway_id, first, oldest, sound, len(records))

    async def _write(self, gateway_id: str, first: int, oldest: bool, records: list[Record], count: int) -> int:
        def work(connection: Connection) -> int:
            wanted = attempts.position(connection, gateway_id) or 0
            self._writer.write(connection, records)
            if first > wanted and not oldest:
                return wanted
            end = max(wanted, first + count)
            if end != wanted:
                self._writer.advance(connection, gateway_id, end)
            return end

        wanted = await self._database.write_batch(work)
        self._taken()
        return wanted

    def _report(self, gateway_id: str, records: list[Record]) -> None:
        """One impossible record must not hold up everything behind it. It holds no prompt, so the log keeps it."""
        for record in records:
            if not attempts.storable(record):
                log.error(
                    "%s sent a record that cannot be stored: %s", gateway_id, msgspec.json.encode(record).decode()
                )
