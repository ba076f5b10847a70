"""API keys."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.keys import Secret, new_id
from tokenworks.control.storage.pages import Page, page
from tokenworks.control.storage.tables import api_keys, organizations, projects
from tokenworks.snapshot.records import KeyRecord

Names = tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a key may do. None: no restriction."""

    models: Names = None
    scopes: Names = None
    regions: Names = None
    networks: Names = None
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: str
    project_id: str
    organization_id: str
    digest: str
    redacted: str
    name: str
    models: Names
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None
    service_account_id: str | None = None
    scopes: Names = None
    regions: Names = None
    networks: Names = None
    rotated_from: str | None = None

    @property
    def policy(self) -> Policy:
        return Policy(self.models, self.scopes, self.regions, self.networks, self.expires_at)

    def record(self) -> KeyRecord:
        return KeyRecord(
            id=self.id,
            digest=self.digest,
            project_id=self.project_id,
            organization_id=self.organization_id,
            expires_at=self.expires_at,
            models=self.models,
            scopes=self.scopes,
            regions=self.regions,
            networks=self.networks,
        )


_LISTS = ("models", "scopes", "regions", "networks")
_COLUMNS = (*(column for column in api_keys.c), projects.c.organization_id)
_QUERY = select(*_COLUMNS).join(projects, projects.c.id == api_keys.c.project_id)


async def create(
    connection: AsyncConnection,
    secret: Secret,
    project_id: str,
    name: str,
    *,
    now: int,
    policy: Policy = Policy(),
    service_account_id: str | None = None,
    rotated_from: str | None = None,
) -> ApiKey:
    key_id = new_id("key")
    await connection.execute(
        insert(api_keys).values(
            id=key_id,
            project_id=project_id,
            digest=secret.digest,
            redacted=secret.redacted,
            name=name,
            created_at=now,
            service_account_id=service_account_id,
            rotated_from=rotated_from,
            **_values(policy),
        )
    )
    key = await find(connection, key_id)
    assert key is not None  # noqa: S101 -- inserted above, in this transaction
    return key


async def change(connection: AsyncConnection, id: str, name: str, policy: Policy) -> None:
    await connection.execute(update(api_keys).where(api_keys.c.id == id).values(name=name, **_values(policy)))


async def find(connection: AsyncConnection, id: str, organization_id: str | None = None) -> ApiKey | None:
    """`organization_id`: only when it belongs to this one."""
    query = _QUERY.where(api_keys.c.id == id)
    if organization_id is not None:
        query = query.where(projects.c.organization_id == organization_id)
    return _one(await connection.execute(query))


async def find_active(connection: AsyncConnection, digest: str, now: int) -> ApiKey | None:
    return _one(await connection.execute(_active(now).where(api_keys.c.digest == digest)))


async def every(connection: AsyncConnection, organization_id: str | None = None) -> list[ApiKey]:
    """Newest first."""
    query = _QUERY.order_by(api_keys.c.created_at.desc(), api_keys.c.id)
    if organization_id is not None:
        query = query.where(projects.c.organization_id == organization_id)
    return [_key(row) for row in await connection.execute(query)]


async def of_project(connection: AsyncConnection, project_id: str, limit: int, after: str | None) -> Page[ApiKey]:
    """Those that were not revoked, newest first."""
    query = _QUERY.where(api_keys.c.project_id == project_id, api_keys.c.revoked_at.is_(None))
    return await page(connection, query, (api_keys.c.created_at, api_keys.c.id), limit, after, _key)


async def every_active(connection: AsyncConnection, now: int) -> list[ApiKey]:
    return [_key(row) for row in await connection.execute(_active(now))]


async def revoke(connection: AsyncConnection, id: str, now: int) -> ApiKey | None:
    """The key as it is now; None when there is no such key. The first revocation's time stands."""
    await revoke_all(connection, api_keys.c.id == id, now)
    return await find(connection, id)


async def revoke_all(connection: AsyncConnection, which: Any, now: int) -> Collection[str]:
    """The digests of the keys that this revoked."""
    statement = update(api_keys).where(which, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
    return list((await connection.execute(statement.returning(api_keys.c.digest))).scalars())


def _active(now: int) -> Any:
    """Not revoked, not expired, of a project and an organization that are not archived."""
    return _QUERY.join(organizations, organizations.c.id == projects.c.organization_id).where(
        api_keys.c.revoked_at.is_(None),
        or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now),
        projects.c.archived_at.is_(None),
        organizations.c.archived_at.is_(None),
    )


def _values(policy: Policy) -> dict[str, Any]:
    lists = {name: getattr(policy, name) for name in _LISTS}
    return {
        **{name: None if value is None else list(value) for name, value in lists.items()},
        "expires_at": policy.expires_at,
    }


def _one(result: Any) -> ApiKey | None:
    row = result.first()
    return None if row is None else _key(row)


def _key(row: Row[Any]) -> ApiKey:
    values = dict(row._mapping)
    for name in _LISTS:
        values[name] = None if values[name] is None else tuple(values[name])
    return ApiKey(**values)
