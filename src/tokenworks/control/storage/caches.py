"""What projects want of the cache of answers."""

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Table, Text, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.metadata import metadata
from tokenworks.snapshot.records import CacheRecord

caches = Table(
    "caches",
    metadata,
    Column("project_id", Text, ForeignKey("projects.id"), primary_key=True),
    Column("seconds", BigInteger),
    Column("similarity", Double),
)
_COLUMNS = (caches.c.project_id, caches.c.seconds, caches.c.similarity)


async def put(connection: AsyncConnection, wish: CacheRecord) -> None:
    """In place of the one that there was."""
    await remove(connection, wish.project_id)
    row = {"project_id": wish.project_id, "seconds": wish.seconds, "similarity": wish.similarity}
    await connection.execute(insert(caches).values(row))


async def find(connection: AsyncConnection, project_id: str) -> CacheRecord | None:
    row = (await connection.execute(select(*_COLUMNS).where(caches.c.project_id == project_id))).first()
    return None if row is None else CacheRecord(*row)


async def remove(connection: AsyncConnection, project_id: str) -> None:
    await connection.execute(delete(caches).where(caches.c.project_id == project_id))


async def every(connection: AsyncConnection) -> list[CacheRecord]:
    return [CacheRecord(*row) for row in await connection.execute(select(*_COLUMNS).order_by(caches.c.project_id))]
