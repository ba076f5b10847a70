"""API keys."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.keys import Secret, new_id
from tokenworks.control.storage.tables import api_keys, projects
from tokenworks.snapshot.records import KeyRecord


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: str
    project_id: str
    organization_id: str
    digest: str
    redacted: str
    name: str
    models: tuple[str, ...] | None
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None

    def record(self) -> KeyRecord:
        return KeyRecord(self.id, self.digest, self.project_id, self.organization_id, self.expires_at, self.models)


_COLUMNS = (*(column for column in api_keys.c), projects.c.organization_id)
_QUERY = select(*_COLUMNS).join(projects, projects.c.id == api_keys.c.project_id)


async def create(
    connection: AsyncConnection,
    secret: Secret,
    project_id: str,
    name: str,
    *,
    models: tuple[str, ...] | None = None,
    expires_at: int | None = None,
    now: int,
) -> ApiKey:
    key_id = new_id("key")
    await connection.execute(
        insert(api_keys).values(
            id=key_id,
            project_id=project_id,
            digest=secret.digest,
            redacted=secret.redacted,
            name=name,
            models=None if models is None else list(models),
            created_at=now,
            expires_at=expires_at,
        )
    )
    key = await find(connection, key_id)
    assert key is not None  # noqa: S101 -- inserted above, in this transaction
    return key


async def find(connection: AsyncConnection, id: str) -> ApiKey | None:
    return _one(await connection.execute(_QUERY.where(api_keys.c.id == id)))


async def find_active(connection: AsyncConnection, digest: str, now: int) -> ApiKey | None:
    return _one(await connection.execute(_QUERY.where(api_keys.c.digest == digest, _active(now))))


async def every(connection: AsyncConnection) -> list[ApiKey]:
    """Newest first."""
    rows = await connection.execute(_QUERY.order_by(api_keys.c.created_at.desc(), api_keys.c.id))
    return [_key(row) for row in rows]


async def every_active(connection: AsyncConnection, now: int) -> list[ApiKey]:
    return [_key(row) for row in await connection.execute(_QUERY.where(_active(now)))]


async def revoke(connection: AsyncConnection, id: str, now: int) -> ApiKey | None:
    """The key as it is now; None when there is no such key. The first revocation's time stands."""
    statement = update(api_keys).where(api_keys.c.id == id, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
    await connection.execute(statement)
    return await find(connection, id)


def _active(now: int) -> Any:
    unexpired = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now)
    return api_keys.c.revoked_at.is_(None) & unexpired


def _one(result: Any) -> ApiKey | None:
    row = result.first()
    return None if row is None else _key(row)


def _key(row: Row[Any]) -> ApiKey:
    values = dict(row._mapping)
    models = values.pop("models")
    return ApiKey(**values, models=None if models is None else tuple(models))
