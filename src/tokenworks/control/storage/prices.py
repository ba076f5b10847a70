"""Rows of the price book. A row is never changed but for the end of a version that is in force, and that not into the
past; only what never came into force is removed."""

from typing import Any

import msgspec
from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.pricing.entries import Entry, Subject, Terms
from tokenworks.control.storage.tables import prices
from tokenworks.core.price import Price
from tokenworks.snapshot.records import WhenRecord


async def every(connection: AsyncConnection) -> list[Entry]:
    """In the order of their dates."""
    query = select(prices).order_by(prices.c.starts, prices.c.id)
    return [_entry(row) for row in await connection.execute(query)]


async def of(connection: AsyncConnection, subject: Subject) -> list[Entry]:
    query = select(prices).where(
        prices.c.side == subject.side,
        prices.c.subject == subject.name,
        prices.c.organization_id == subject.organization_id,
        prices.c.project_id == subject.project_id,
    )
    return [_entry(row) for row in await connection.execute(query.order_by(prices.c.starts, prices.c.id))]


async def find(connection: AsyncConnection, id: str) -> Entry | None:
    row = (await connection.execute(select(prices).where(prices.c.id == id))).first()
    return None if row is None else _entry(row)


def version(connection: Connection, id: str) -> Price | None:
    """What usage was charged with."""
    row = connection.execute(select(prices).where(prices.c.id == id)).first()
    return None if row is None else _entry(row).record().price


async def add(connection: AsyncConnection, entry: Entry) -> None:
    await connection.execute(
        insert(prices).values(
            id=entry.id,
            side=entry.subject.side,
            subject=entry.subject.name,
            organization_id=entry.subject.organization_id,
            project_id=entry.subject.project_id,
            starts=entry.starts,
            ends=entry.ends,
            rates=entry.terms.rates,
            conditions=msgspec.to_builtins(entry.terms.when),
            source=entry.source,
            created_at=entry.created_at,
        )
    )


async def end(connection: AsyncConnection, id: str, ends: int) -> None:
    await connection.execute(update(prices).where(prices.c.id == id).values(ends=ends))


async def remove(connection: AsyncConnection, id: str) -> None:
    await connection.execute(delete(prices).where(prices.c.id == id))


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        row.id,
        Subject(row.side, row.subject, row.organization_id, row.project_id),
        Terms(row.rates, msgspec.convert(row.conditions, tuple[WhenRecord, ...])),
        row.starts,
        row.ends,
        row.source,
        row.created_at,
    )
