"""Where events of an organization are sent."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.pages import Page, page
from tokenworks.control.storage.tables import webhook_endpoints

_OWN = webhook_endpoints.c


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`operator`: made by the operator, who also hears of what belongs to no organization."""

    id: str
    organization_id: str
    operator: bool
    url: str
    description: str
    events: tuple[str, ...]
    created_at: int


async def add(connection: AsyncConnection, endpoint: Endpoint) -> None:
    values = {name: getattr(endpoint, name) for name in Endpoint.__slots__} | {"events": list(endpoint.events)}
    await connection.execute(insert(webhook_endpoints).values(**values))


async def find(connection: AsyncConnection, id: str, organization_id: str) -> Endpoint | None:
    query = select(webhook_endpoints).where(_OWN.id == id, _OWN.organization_id == organization_id)
    row = (await connection.execute(query)).first()
    return None if row is None else _endpoint(row)


async def some(connection: AsyncConnection, organization_id: str, limit: int, after: str | None) -> Page[Endpoint]:
    query = select(webhook_endpoints).where(_OWN.organization_id == organization_id)
    return await page(connection, query, (_OWN.created_at, _OWN.id), limit, after, _endpoint)


async def remove(connection: AsyncConnection, id: str) -> None:
    await connection.execute(delete(webhook_endpoints).where(_OWN.id == id))


async def hearing(connection: AsyncConnection, organization_id: str, event: str) -> list[Endpoint]:
    """`organization_id` "": what belongs to no organization is told to the operator."""
    owner = _OWN.organization_id == organization_id if organization_id else _OWN.operator.is_(True)
    rows = await connection.execute(select(webhook_endpoints).where(owner).order_by(_OWN.id))
    return [each for each in map(_endpoint, rows) if event in each.events]


def _endpoint(row: Row[Any]) -> Endpoint:
    return Endpoint(
        row.id, row.organization_id, row.operator, row.url, row.description, tuple(row.events), row.created_at
    )
