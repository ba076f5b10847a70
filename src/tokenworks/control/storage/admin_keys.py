"""Admin keys: each belongs to an organization, has one role, and perhaps a user whose it is."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.keys import Secret, new_id
from tokenworks.control.storage.pages import Page, page
from tokenworks.control.storage.tables import admin_keys, organizations, users


@dataclass(frozen=True, slots=True)
class AdminKey:
    id: str
    organization_id: str
    digest: str
    redacted: str
    name: str
    created_at: int
    role: str
    revoked_at: int | None = None
    user_id: str | None = None
    expires_at: int | None = None
    last_used_at: int | None = None
    email: str | None = None
    """Of its user."""


_QUERY = select(*admin_keys.c, users.c.email).outerjoin(users, users.c.id == admin_keys.c.user_id)


async def create(
    connection: AsyncConnection,
    secret: Secret,
    organization_id: str,
    name: str,
    role: str,
    *,
    now: int,
    expires_at: int | None = None,
    user_id: str | None = None,
) -> AdminKey:
    key_id = new_id("adminkey")
    await connection.execute(
        insert(admin_keys).values(
            id=key_id,
            organization_id=organization_id,
            digest=secret.digest,
            redacted=secret.redacted,
            name=name,
            role=role,
            created_at=now,
            expires_at=expires_at,
            user_id=user_id,
        )
    )
    made = await find(connection, key_id, organization_id)
    assert made is not None  # noqa: S101 -- inserted above, in this transaction
    return made


async def find(connection: AsyncConnection, id: str, organization_id: str) -> AdminKey | None:
    query = _QUERY.where(admin_keys.c.id == id, admin_keys.c.organization_id == organization_id)
    return _one(await connection.execute(query))


async def find_active(connection: AsyncConnection, digest: str, now: int) -> AdminKey | None:
    """Looked up by hash, so the time it takes tells nothing about any key."""
    query = _QUERY.join(organizations, organizations.c.id == admin_keys.c.organization_id).where(
        admin_keys.c.digest == digest,
        admin_keys.c.revoked_at.is_(None),
        or_(admin_keys.c.expires_at.is_(None), admin_keys.c.expires_at > now),
        organizations.c.archived_at.is_(None),
    )
    return _one(await connection.execute(query))


async def of_organization(
    connection: AsyncConnection, organization_id: str, limit: int, after: str | None, *, descending: bool
) -> Page[AdminKey]:
    """Those that were not revoked."""
    query = _QUERY.where(admin_keys.c.organization_id == organization_id, admin_keys.c.revoked_at.is_(None))
    order = (admin_keys.c.created_at, admin_keys.c.id)
    return await page(connection, query, order, limit, after, _key, descending=descending)


async def revoke(connection: AsyncConnection, which: Any, now: int) -> None:
    await connection.execute(update(admin_keys).where(which, admin_keys.c.revoked_at.is_(None)).values(revoked_at=now))


async def touch(connection: AsyncConnection, id: str, now: int) -> None:
    await connection.execute(update(admin_keys).where(admin_keys.c.id == id).values(last_used_at=now))


def _one(result: Any) -> AdminKey | None:
    row = result.first()
    return None if row is None else _key(row)


def _key(row: Row[Any]) -> AdminKey:
    return AdminKey(**row._mapping)


async def change_role(connection: AsyncConnection, user_id: str, role: str) -> None:
    """Of every key of a user."""
    await connection.execute(update(admin_keys).where(admin_keys.c.user_id == user_id).values(role=role))
