"""Organizations and their projects."""

from dataclasses import dataclass

from sqlalchemy import Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.keys import new_id
from tokenworks.control.storage.pages import Page, page
from tokenworks.control.storage.tables import organizations, projects


@dataclass(frozen=True, slots=True)
class Organization:
    id: str
    name: str
    created_at: int
    archived_at: int | None = None


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    organization_id: str
    name: str
    created_at: int
    archived_at: int | None = None


async def is_empty(connection: AsyncConnection) -> bool:
    return (await connection.execute(select(func.count()).select_from(organizations))).scalar_one() == 0


async def create_organization(connection: AsyncConnection, name: str, now: int) -> Project:
    """An organization with its first project."""
    organization_id = new_id("org")
    await connection.execute(insert(organizations).values(id=organization_id, name=name, created_at=now))
    return await create_project(connection, organization_id, name, now)


async def organization(connection: AsyncConnection, id: str) -> Organization | None:
    row = (await connection.execute(select(organizations).where(organizations.c.id == id))).first()
    return None if row is None else Organization(*row)


async def every_organization(connection: AsyncConnection, limit: int, after: str | None) -> Page[Organization]:
    order = (organizations.c.created_at, organizations.c.id)
    return await page(connection, select(organizations), order, limit, after, lambda row: Organization(*row))


async def change_organization(
    connection: AsyncConnection, id: str, *, name: str | None = None, archived_at: int | None = None
) -> None:
    changed = {key: value for key, value in (("name", name), ("archived_at", archived_at)) if value is not None}
    await connection.execute(update(organizations).where(organizations.c.id == id).values(**changed))


async def create_project(connection: AsyncConnection, organization_id: str, name: str, now: int) -> Project:
    made = Project(new_id("proj"), organization_id, name, now)
    await connection.execute(
        insert(projects).values(id=made.id, organization_id=organization_id, name=name, created_at=now)
    )
    return made


async def project(connection: AsyncConnection, id: str, organization_id: str) -> Project | None:
    query = select(projects).where(projects.c.id == id, projects.c.organization_id == organization_id)
    row = (await connection.execute(query)).first()
    return None if row is None else Project(*row)


async def default_project(connection: AsyncConnection, organization_id: str) -> Project | None:
    """The oldest one that is not archived: where a key goes that names no project."""
    query = select(projects).where(projects.c.organization_id == organization_id, projects.c.archived_at.is_(None))
    row = (await connection.execute(query.order_by(projects.c.created_at, projects.c.id).limit(1))).first()
    return None if row is None else Project(*row)


async def of_organization(
    connection: AsyncConnection, organization_id: str, limit: int, after: str | None, *, archived: bool
) -> Page[Project]:
    query = select(projects).where(projects.c.organization_id == organization_id)
    if not archived:
        query = query.where(projects.c.archived_at.is_(None))
    order = (projects.c.created_at, projects.c.id)
    return await page(connection, query, order, limit, after, lambda row: Project(*row))


async def rename_project(connection: AsyncConnection, id: str, name: str) -> None:
    await connection.execute(update(projects).where(projects.c.id == id).values(name=name))


async def archive_project(connection: AsyncConnection, id: str, now: int) -> None:
    """The first time stands."""
    unarchived = (projects.c.id == id) & projects.c.archived_at.is_(None)
    await connection.execute(update(projects).where(unarchived).values(archived_at=now))


async def owner_of_project(connection: AsyncConnection, id: str) -> str | None:
    """The id of its organization."""
    return (await connection.execute(select(projects.c.organization_id).where(projects.c.id == id))).scalar()


def projects_of(organization_id: str) -> Select[tuple[str]]:
    """The ids, as a part of a question."""
    return select(projects.c.id).where(projects.c.organization_id == organization_id)
