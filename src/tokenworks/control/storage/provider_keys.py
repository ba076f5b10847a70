"""Keys of providers that projects brought themselves."""

from collections import defaultdict
from dataclasses import dataclass, field

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.pages import Page, page
from tokenworks.control.storage.tables import provider_keys
from tokenworks.snapshot.records import CredentialRecord, OwnKeysRecord


@dataclass(frozen=True, slots=True)
class ProviderKey:
    id: str
    project_id: str
    provider: str
    name: str
    redacted: str
    sealed: bytes = field(repr=False)
    created_at: int

    def record(self) -> CredentialRecord:
        return CredentialRecord(self.id, self.sealed, self.provider)


_ORDER = (provider_keys.c.created_at, provider_keys.c.id)


async def add(connection: AsyncConnection, key: ProviderKey) -> None:
    await connection.execute(
        insert(provider_keys).values(
            id=key.id,
            project_id=key.project_id,
            provider=key.provider,
            name=key.name,
            redacted=key.redacted,
            sealed=key.sealed,
            created_at=key.created_at,
        )
    )


async def find(connection: AsyncConnection, id: str, project_id: str) -> ProviderKey | None:
    query = select(provider_keys).where(provider_keys.c.id == id, provider_keys.c.project_id == project_id)
    row = (await connection.execute(query)).first()
    return None if row is None else ProviderKey(*row)


async def of_project(connection: AsyncConnection, project_id: str, limit: int, after: str | None) -> Page[ProviderKey]:
    query = select(provider_keys).where(provider_keys.c.project_id == project_id)
    return await page(connection, query, _ORDER, limit, after, lambda row: ProviderKey(*row))


async def remove(connection: AsyncConnection, id: str) -> None:
    await connection.execute(delete(provider_keys).where(provider_keys.c.id == id))


async def published(connection: AsyncConnection) -> list[OwnKeysRecord]:
    """All of them, by project; the oldest of a provider is used first."""
    found: defaultdict[str, list[CredentialRecord]] = defaultdict(list)
    for row in await connection.execute(select(provider_keys).order_by(*_ORDER)):
        found[row.project_id].append(ProviderKey(*row).record())
    return [OwnKeysRecord(project_id, tuple(keys)) for project_id, keys in found.items()]
