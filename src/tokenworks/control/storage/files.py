"""Rows of files. What a project may see is decided here, once, by `_visible`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, exists, insert, or_, select, tuple_, update
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.tables import batches, files

INTERNAL_PURPOSES = ("message_batch", "message_batch_results")
"""Inputs and results of message batches: kept like files, never listed as such."""
ACTIVE = ("validating", "in_progress", "finalizing", "cancelling")
UPLOAD_SECONDS = 24 * 3600
"""An upload that has not ended by then never will."""


@dataclass(frozen=True, slots=True)
class File:
    id: str
    project_id: str
    purpose: str
    filename: str
    created_ns: int
    expires_at: int | None = None
    bytes: int | None = None
    sha256: str | None = None

    @property
    def key(self) -> str:
        """Of its object in the store."""
        return object_key(self.id)


def object_key(file_id: str) -> str:
    return f"files/{file_id}"


_COLUMNS = tuple(files.c[name] for name in File.__dataclass_fields__)


async def begin(connection: AsyncConnection, file: File) -> None:
    """Before its bytes come: whatever happens then, what is left of it will be found and removed."""
    await connection.execute(insert(files).values(_values(file)))


def add(connection: Connection, made: Sequence[File]) -> None:
    """Files whose bytes are there already."""
    for file in made:
        connection.execute(insert(files).values(_values(file)))


async def finish(connection: AsyncConnection, file: File) -> None:
    new = {"bytes": file.bytes, "sha256": file.sha256, "purpose": file.purpose, "expires_at": file.expires_at}
    await connection.execute(update(files).where(files.c.id == file.id).values(filename=file.filename, **new))


async def find(connection: AsyncConnection, project_id: str, id: str, now: int) -> File | None:
    query = select(*_COLUMNS).where(files.c.id == id, _visible(project_id, now))
    return _file((await connection.execute(query)).first())


async def find_any(connection: AsyncConnection, id: str) -> File | None:
    """For the batch that uses it: also when it has expired meanwhile."""
    return _file((await connection.execute(select(*_COLUMNS).where(files.c.id == id))).first())


async def page(
    connection: AsyncConnection,
    project_id: str,
    now: int,
    limit: int,
    *,
    purpose: str | None,
    after: File | None,
    newest: bool,
) -> list[File]:
    """At most `limit` files that follow `after`, by the time they were made."""
    query = select(*_COLUMNS).where(_visible(project_id, now), files.c.purpose.not_in(INTERNAL_PURPOSES))
    if purpose is not None:
        query = query.where(files.c.purpose == purpose)
    place = tuple_(files.c.created_ns, files.c.id)
    if after is not None:
        here = tuple_(after.created_ns, after.id)
        query = query.where(place < here if newest else place > here)
    order = (files.c.created_ns, files.c.id)
    query = query.order_by(*(column.desc() if newest else column for column in order)).limit(limit)
    return [File(**row._mapping) for row in await connection.execute(query)]


async def is_used(connection: AsyncConnection, id: str) -> str | None:
    """The id of a batch that has not ended and reads this file."""
    query = select(batches.c.id).where(batches.c.status.in_(ACTIVE), batches.c.input_file_id == id).limit(1)
    return (await connection.execute(query)).scalar()


async def hide(connection: AsyncConnection, id: str, now: int) -> None:
    """From now on nobody sees it; `garbage` names it until its object is gone too."""
    await connection.execute(update(files).where(files.c.id == id, files.c.deleted_at.is_(None)).values(deleted_at=now))


async def garbage(connection: AsyncConnection, now: int, limit: int = 100) -> list[str]:
    """Files whose bytes may go: deleted, expired, or never finished; and no batch reads them any more."""
    unfinished = files.c.bytes.is_(None) & (files.c.created_ns < (now - UPLOAD_SECONDS) * 1_000_000_000)
    used = exists().where(batches.c.input_file_id == files.c.id, batches.c.status.in_(ACTIVE))
    gone = or_(files.c.deleted_at.is_not(None), files.c.expires_at <= now, unfinished)
    return list((await connection.execute(select(files.c.id).where(gone, ~used).limit(limit))).scalars())


async def forget(connection: AsyncConnection, id: str) -> None:
    await connection.execute(delete(files).where(files.c.id == id))


def _visible(project_id: str, now: int) -> Any:
    unexpired = or_(files.c.expires_at.is_(None), files.c.expires_at > now)
    return (files.c.project_id == project_id) & files.c.deleted_at.is_(None) & files.c.bytes.is_not(None) & unexpired


def _values(file: File) -> dict[str, Any]:
    return {name: getattr(file, name) for name in File.__dataclass_fields__}


def _file(row: Row[Any] | None) -> File | None:
    return None if row is None else File(**row._mapping)
