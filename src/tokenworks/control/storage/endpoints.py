"""Where events are sent: of a whole organization, or of one of its projects."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, func, insert, or_, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.pages import Page, page
from tokenworks.control.storage.tables import projects, webhook_endpoints

_OWN = webhook_endpoints.c


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`operator`: made by the operator, who also hears of what belongs to no organization. `project_id` None: the
    organization's own. `secret_number` counts its secrets; the one before signs too until `both_until`."""

    id: str
    organization_id: str
    operator: bool
    url: str
    description: str
    events: tuple[str, ...]
    created_at: int
    project_id: str | None = None
    updated_at: int | None = None
    secret_number: int = 0
    both_until: int | None = None

    def signer(self) -> str:
        """What its secret is derived from."""
        return _signer(self.id, self.secret_number)

    def signers(self, now: int) -> list[str]:
        """The newest first."""
        both = self.both_until is not None and self.both_until > now
        return [self.signer(), *([_signer(self.id, self.secret_number - 1)] if both else [])]


def _signer(id: str, number: int) -> str:
    return f"{id} {number}" if number else id


async def add(connection: AsyncConnection, endpoint: Endpoint) -> None:
    values = {name: getattr(endpoint, name) for name in Endpoint.__slots__} | {"events": list(endpoint.events)}
    await connection.execute(insert(webhook_endpoints).values(**values))


async def change(connection: AsyncConnection, id: str, values: Mapping[str, Any]) -> None:
    await connection.execute(update(webhook_endpoints).where(_OWN.id == id).values(**values))


async def get(connection: AsyncConnection, id: str) -> Endpoint | None:
    row = (await connection.execute(select(webhook_endpoints).where(_OWN.id == id))).first()
    return None if row is None else _endpoint(row)


async def find(connection: AsyncConnection, id: str, organization_id: str) -> Endpoint | None:
    """One of the organization's own."""
    found = await get(connection, id)
    own = found is not None and found.organization_id == organization_id and found.project_id is None
    return found if own else None


async def some(connection: AsyncConnection, organization_id: str, limit: int, after: str | None) -> Page[Endpoint]:
    """The organization's own."""
    query = select(webhook_endpoints).where(_OWN.organization_id == organization_id, _OWN.project_id.is_(None))
    return await page(connection, query, (_OWN.created_at, _OWN.id), limit, after, _endpoint)


async def some_of_project(
    connection: AsyncConnection, project_id: str, limit: int, after: str | None
) -> Page[Endpoint]:
    query = select(webhook_endpoints).where(_OWN.project_id == project_id)
    return await page(connection, query, (_OWN.created_at, _OWN.id), limit, after, _endpoint)


async def count(connection: AsyncConnection, project_id: str) -> int:
    query = select(func.count()).select_from(webhook_endpoints).where(_OWN.project_id == project_id)
    return int((await connection.execute(query)).scalar_one())


async def remove(connection: AsyncConnection, id: str) -> None:
    await connection.execute(delete(webhook_endpoints).where(_OWN.id == id))


async def hearing(connection: AsyncConnection, organization_id: str, event: str) -> list[Endpoint]:
    """The organization's own. `organization_id` "": what belongs to no organization is told to the operator."""
    owner = _OWN.organization_id == organization_id if organization_id else _OWN.operator.is_(True)
    query = select(webhook_endpoints).where(owner, _OWN.project_id.is_(None)).order_by(_OWN.id)
    return [each for each in map(_endpoint, await connection.execute(query)) if event in each.events]


def of_project(connection: Connection, project_id: str, event: str) -> list[Endpoint]:
    """Those that hear of what happens in a project: its own and its organization's."""
    organization = select(projects.c.organization_id).where(projects.c.id == project_id).scalar_subquery()
    mine = or_(_OWN.project_id.is_(None), _OWN.project_id == project_id)
    query = select(webhook_endpoints).where(_OWN.organization_id == organization, mine).order_by(_OWN.id)
    return [each for each in map(_endpoint, connection.execute(query)) if event in each.events]


def _endpoint(row: Row[Any]) -> Endpoint:
    return Endpoint(**{**row._mapping, "events": tuple(row.events)})
