"""People: users of an organization, their places in projects, and invites to become one."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.keys import Secret, new_id
from tokenworks.control.storage.pages import Page, page
from tokenworks.control.storage.tables import invites, project_users, projects, users


@dataclass(frozen=True, slots=True)
class User:
    id: str
    organization_id: str
    email: str
    name: str
    role: str
    created_at: int


@dataclass(frozen=True, slots=True)
class ProjectUser:
    id: str
    email: str
    name: str
    role: str
    """owner | member, of the project."""
    created_at: int


@dataclass(frozen=True, slots=True)
class Invite:
    id: str
    organization_id: str
    email: str
    role: str
    projects: list[dict[str, str]]
    created_at: int
    expires_at: int
    accepted_at: int | None


async def create_user(
    connection: AsyncConnection, organization_id: str, email: str, name: str, role: str, now: int
) -> User:
    """IntegrityError when there is one with this address."""
    made = User(new_id("user"), organization_id, email, name, role, now)
    await connection.execute(
        insert(users).values(
            id=made.id, organization_id=organization_id, email=email, name=name, role=role, created_at=now
        )
    )
    return made


async def user(connection: AsyncConnection, id: str, organization_id: str) -> User | None:
    return await _first_user(connection, select(users).where(users.c.id == id), organization_id)


async def user_of(connection: AsyncConnection, email: str, organization_id: str) -> User | None:
    return await _first_user(connection, select(users).where(users.c.email == email), organization_id)


async def _first_user(connection: AsyncConnection, query: Select[Any], organization_id: str) -> User | None:
    row = (await connection.execute(query.where(users.c.organization_id == organization_id))).first()
    return None if row is None else User(*row)


async def every_user(
    connection: AsyncConnection, organization_id: str, limit: int, after: str | None, emails: list[str] | None
) -> Page[User]:
    query = select(users).where(users.c.organization_id == organization_id)
    if emails:
        query = query.where(users.c.email.in_(emails))
    return await page(connection, query, (users.c.created_at, users.c.id), limit, after, lambda row: User(*row))


async def owners(connection: AsyncConnection, organization_id: str) -> int:
    query = select(users.c.id).where(users.c.organization_id == organization_id, users.c.role == "owner")
    return len((await connection.execute(query)).all())


async def change_role(connection: AsyncConnection, id: str, role: str) -> None:
    await connection.execute(update(users).where(users.c.id == id).values(role=role))


async def remove_user(connection: AsyncConnection, id: str) -> None:
    await connection.execute(delete(project_users).where(project_users.c.user_id == id))
    await connection.execute(delete(users).where(users.c.id == id))


async def projects_of(connection: AsyncConnection, user_id: str) -> list[dict[str, str]]:
    query = select(projects.c.id, projects.c.name, project_users.c.role).join(
        project_users, project_users.c.project_id == projects.c.id
    )
    rows = await connection.execute(query.where(project_users.c.user_id == user_id).order_by(projects.c.id))
    return [dict(row) for row in rows.mappings()]


_PROJECT_USER = select(users.c.id, users.c.email, users.c.name, project_users.c.role, project_users.c.created_at).join(
    project_users, project_users.c.user_id == users.c.id
)


async def join_project(connection: AsyncConnection, project_id: str, user_id: str, role: str, now: int) -> None:
    """IntegrityError when the user is there already."""
    await connection.execute(
        insert(project_users).values(project_id=project_id, user_id=user_id, role=role, created_at=now)
    )


async def in_project(connection: AsyncConnection, project_id: str, user_id: str) -> ProjectUser | None:
    query = _PROJECT_USER.where(project_users.c.project_id == project_id, users.c.id == user_id)
    row = (await connection.execute(query)).first()
    return None if row is None else ProjectUser(*row)


async def every_in_project(
    connection: AsyncConnection, project_id: str, limit: int, after: str | None
) -> Page[ProjectUser]:
    query = _PROJECT_USER.where(project_users.c.project_id == project_id)
    order = (project_users.c.created_at, users.c.id)
    return await page(connection, query, order, limit, after, lambda row: ProjectUser(*row))


async def change_project_role(connection: AsyncConnection, project_id: str, user_id: str, role: str) -> None:
    place = (project_users.c.project_id == project_id) & (project_users.c.user_id == user_id)
    await connection.execute(update(project_users).where(place).values(role=role))


async def leave_project(connection: AsyncConnection, project_id: str, user_id: str) -> None:
    place = (project_users.c.project_id == project_id) & (project_users.c.user_id == user_id)
    await connection.execute(delete(project_users).where(place))


_INVITE = select(*(column for column in invites.c if column.name != "digest"))


async def create_invite(connection: AsyncConnection, secret: Secret, invite: Invite) -> None:
    await connection.execute(
        insert(invites).values(
            id=invite.id,
            organization_id=invite.organization_id,
            digest=secret.digest,
            email=invite.email,
            role=invite.role,
            projects=invite.projects,
            created_at=invite.created_at,
            expires_at=invite.expires_at,
        )
    )


async def invite(connection: AsyncConnection, id: str, organization_id: str) -> Invite | None:
    query = _INVITE.where(invites.c.id == id, invites.c.organization_id == organization_id)
    row = (await connection.execute(query)).first()
    return None if row is None else Invite(*row)


async def invite_by(connection: AsyncConnection, secret: Secret) -> Invite | None:
    row = (await connection.execute(_INVITE.where(invites.c.digest == secret.digest))).first()
    return None if row is None else Invite(*row)


async def every_invite(
    connection: AsyncConnection, organization_id: str, limit: int, after: str | None
) -> Page[Invite]:
    query = _INVITE.where(invites.c.organization_id == organization_id)
    return await page(connection, query, (invites.c.created_at, invites.c.id), limit, after, lambda row: Invite(*row))


async def accept_invite(connection: AsyncConnection, id: str, now: int) -> None:
    await connection.execute(update(invites).where(invites.c.id == id).values(accepted_at=now))


async def remove_invite(connection: AsyncConnection, id: str) -> None:
    await connection.execute(delete(invites).where(invites.c.id == id))
