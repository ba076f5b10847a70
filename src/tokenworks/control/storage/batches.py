"""Rows of batches, and the steps of their lives.

    validating -> in_progress -> finalizing -> completed | expired
         |             |
         |             +-> cancelling -> cancelled
         +-> failed

A step is an UPDATE that names the status it starts from, so that of two at once one happens.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, delete, insert, select, tuple_, update
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.files import ACTIVE
from tokenworks.control.storage.tables import batch_lines, batches

Batch = Row[Any]
"""A row of `batches`, by the names of its columns."""


async def create(connection: AsyncConnection, values: Mapping[str, Any]) -> Batch:
    await connection.execute(insert(batches).values(**values))
    batch = await get(connection, values["id"])
    assert batch is not None  # noqa: S101 -- inserted above, in this transaction
    return batch


async def get(connection: AsyncConnection, id: str) -> Batch | None:
    return (await connection.execute(select(batches).where(batches.c.id == id))).first()


async def find(connection: AsyncConnection, project_id: str, object: str, id: str) -> Batch | None:
    query = select(batches).where(batches.c.id == id, batches.c.project_id == project_id, batches.c.object == object)
    return (await connection.execute(query)).first()


async def page(
    connection: AsyncConnection,
    project_id: str,
    object: str,
    limit: int,
    *,
    after: Batch | None = None,
    before: Batch | None = None,
) -> list[Batch]:
    """Newest first: at most `limit` that follow `after`, or that come right before `before`."""
    query = select(batches).where(batches.c.project_id == project_id, batches.c.object == object)
    place, order = tuple_(batches.c.created_ns, batches.c.id), (batches.c.created_ns, batches.c.id)
    if before is not None:
        query = query.where(place > tuple_(before.created_ns, before.id)).order_by(*order).limit(limit)
        return list(reversed((await connection.execute(query)).all()))
    if after is not None:
        query = query.where(place < tuple_(after.created_ns, after.id))
    query = query.order_by(*(column.desc() for column in order)).limit(limit)
    return list((await connection.execute(query)).all())


async def active(connection: AsyncConnection) -> list[Batch]:
    """All that have not ended, oldest first."""
    query = select(batches).where(batches.c.status.in_(ACTIVE)).order_by(batches.c.created_ns, batches.c.id)
    return list((await connection.execute(query)).all())


async def step(connection: AsyncConnection, id: str, source: tuple[str, ...], **values: Any) -> bool:
    """Whether the batch was in one of the `source` states, and is now as `values` say."""
    statement = update(batches).where(batches.c.id == id, batches.c.status.in_(source)).values(**values)
    return (await connection.execute(statement)).rowcount == 1


async def remove(connection: AsyncConnection, id: str) -> None:
    await connection.execute(delete(batch_lines).where(batch_lines.c.batch_id == id))
    await connection.execute(delete(batches).where(batches.c.id == id))


def end(connection: Connection, id: str, status: str, values: Mapping[str, Any]) -> bool:
    """The last step: the outputs are written, so the lines may go."""
    statement = update(batches).where(batches.c.id == id, batches.c.status.in_(("finalizing", "cancelling")))
    if connection.execute(statement.values(status=status, **values)).rowcount != 1:
        return False
    connection.execute(delete(batch_lines).where(batch_lines.c.batch_id == id))
    return True
