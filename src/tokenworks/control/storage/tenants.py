"""Organizations, projects and admin keys."""

from dataclasses import dataclass

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.keys import Secret, new_id
from tokenworks.control.storage.tables import admin_keys, organizations, projects


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    organization_id: str


async def is_empty(connection: AsyncConnection) -> bool:
    return (await connection.execute(select(func.count()).select_from(organizations))).scalar_one() == 0


async def create_organization(connection: AsyncConnection, name: str, now: int) -> Project:
    """An organization with its first project."""
    project = Project(new_id("proj"), new_id("org"))
    await connection.execute(insert(organizations).values(id=project.organization_id, name=name, created_at=now))
    await connection.execute(
        insert(projects).values(id=project.id, organization_id=project.organization_id, name=name, created_at=now)
    )
    return project


async def default_project(connection: AsyncConnection) -> Project:
    """The oldest one: where a key goes that names no project."""
    query = select(projects.c.id, projects.c.organization_id).order_by(projects.c.created_at, projects.c.id).limit(1)
    return Project(*(await connection.execute(query)).one())


async def create_admin_key(connection: AsyncConnection, secret: Secret, project: Project, name: str, now: int) -> None:
    await connection.execute(
        insert(admin_keys).values(
            id=new_id("adminkey"),
            organization_id=project.organization_id,
            digest=secret.digest,
            redacted=secret.redacted,
            name=name,
            created_at=now,
        )
    )


async def is_admin(connection: AsyncConnection, digest: str) -> bool:
    """A valid admin key's digest? Looked up by hash, so the time it takes tells nothing about any key."""
    query = select(admin_keys.c.id).where(admin_keys.c.digest == digest, admin_keys.c.revoked_at.is_(None))
    return (await connection.execute(query)).first() is not None
