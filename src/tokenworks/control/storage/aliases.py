"""Versions of virtual models. Rows are only ever added: triggers of the database refuse anything else."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Row, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.tables import alias_versions, usage

FAR_BACK = 31 * 86_400
"""Seconds that are looked back for requests."""
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Version:
    """`definition` None: from then on there is no such alias. `author`: whose admin key it was, or the file."""

    name: str
    version: int
    definition: dict[str, Any] | None
    from_file: bool
    author: str
    note: str
    created_at: int


async def add(connection: AsyncConnection, version: Version) -> None:
    await connection.execute(insert(alias_versions).values(**asdict(version)))


async def newest(connection: AsyncConnection, *, from_file: bool = False) -> dict[str, Version]:
    """By name, of every alias that ever was. `from_file`: of those versions only that the file has made."""
    table = alias_versions
    latest = select(table.c.name, func.max(table.c.version).label("version")).group_by(table.c.name)
    if from_file:
        latest = latest.where(table.c.from_file.is_(True))
    last = latest.subquery()
    query = select(table).join(last, (table.c.name == last.c.name) & (table.c.version == last.c.version))
    return {row.name: _version(row) for row in await connection.execute(query.order_by(table.c.name))}


async def dates(connection: AsyncConnection) -> dict[str, int]:
    """By name, when its first version was made."""
    query = select(alias_versions.c.name, alias_versions.c.created_at).where(alias_versions.c.version == 1)
    return {row.name: row.created_at for row in await connection.execute(query)}


async def of(connection: AsyncConnection, name: str, limit: int, before: int | None = None) -> list[Version]:
    """Its versions, newest first, from those before `before` on."""
    query = select(alias_versions).where(alias_versions.c.name == name)
    if before is not None:
        query = query.where(alias_versions.c.version < before)
    rows = await connection.execute(query.order_by(alias_versions.c.version.desc()).limit(limit))
    return [_version(row) for row in rows]


async def find(connection: AsyncConnection, name: str, version: int) -> Version | None:
    query = select(alias_versions).where(alias_versions.c.name == name, alias_versions.c.version == version)
    row = (await connection.execute(query)).first()
    return None if row is None else _version(row)


async def recent(connection: AsyncConnection, alias: str, model: str, most: int, now: int) -> list[Row[Any]]:
    """The last requests that named the alias, or else the model itself where one is given; newest first."""
    query = select(usage).where(
        usage.c.opened_ns >= (now - FAR_BACK) * _NANO,
        usage.c.settled_ns.is_not(None),
        usage.c.shadow.is_(False),
        usage.c.attempt == 1,
        (usage.c.alias == "") & (usage.c.model == model) if model else usage.c.alias == alias,
    )
    return list(await connection.execute(query.order_by(usage.c.opened_ns.desc()).limit(most)))


def _version(row: Row[Any]) -> Version:
    return Version(**row._mapping)
