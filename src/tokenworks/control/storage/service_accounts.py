"""Service accounts: a project's users that are programs. Their keys are API keys."""

from dataclasses import dataclass

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.keys import new_id
from tokenworks.control.storage.pages import Page, page
from tokenworks.control.storage.tables import service_accounts


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    id: str
    project_id: str
    name: str
    role: str
    created_at: int


_QUERY = select(*(column for column in service_accounts.c if column.name != "deleted_at")).where(
    service_accounts.c.deleted_at.is_(None)
)


async def create(connection: AsyncConnection, project_id: str, name: str, role: str, now: int) -> ServiceAccount:
    made = ServiceAccount(new_id("svcacct"), project_id, name, role, now)
    await connection.execute(
        insert(service_accounts).values(id=made.id, project_id=project_id, name=name, role=role, created_at=now)
    )
    return made


async def find(connection: AsyncConnection, id: str, project_id: str) -> ServiceAccount | None:
    query = _QUERY.where(service_accounts.c.id == id, service_accounts.c.project_id == project_id)
    row = (await connection.execute(query)).first()
    return None if row is None else ServiceAccount(*row)


async def of_project(
    connection: AsyncConnection, project_id: str, limit: int, after: str | None
) -> Page[ServiceAccount]:
    query = _QUERY.where(service_accounts.c.project_id == project_id)
    order = (service_accounts.c.created_at, service_accounts.c.id)
    return await page(connection, query, order, limit, after, lambda row: ServiceAccount(*row))


async def change(connection: AsyncConnection, id: str, name: str, role: str) -> None:
    await connection.execute(update(service_accounts).where(service_accounts.c.id == id).values(name=name, role=role))


async def remove(connection: AsyncConnection, id: str, now: int) -> None:
    """Its row stays: keys and usage name it."""
    await connection.execute(update(service_accounts).where(service_accounts.c.id == id).values(deleted_at=now))
