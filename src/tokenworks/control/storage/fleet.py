"""Replicas that workers have reported, and the dates of models."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.tables import models, replicas


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine worker, as its last heartbeat (or the lack of one) describes it."""

    id: str
    model: str
    provider: str
    protocols: tuple[str, ...]
    base_url: str
    state: str
    reason: str = ""
    quirks: tuple[str, ...] = ()
    context_length: int | None = None
    max_output: int | None = None
    capabilities: tuple[str, ...] = ()
    region: str = ""
    """Labels that its worker states; see snapshot.records.UpstreamRecord."""
    jurisdiction: str = ""
    retention: int | None = None
    trains: bool | None = None


_LISTS = ("protocols", "quirks", "capabilities")
_COLUMNS = [replicas.c[name] for name in Replica.__dataclass_fields__]


async def every_replica(connection: AsyncConnection) -> list[Replica]:
    """Oldest first."""
    rows = await connection.execute(select(*_COLUMNS).order_by(replicas.c.created_at, replicas.c.id))
    return [Replica(**{**row._mapping, **{name: tuple(row._mapping[name]) for name in _LISTS}}) for row in rows]


async def save_replica(connection: AsyncConnection, replica: Replica, now: int) -> None:
    values = asdict(replica)
    changed = await connection.execute(update(replicas).where(replicas.c.id == replica.id).values(values))
    if changed.rowcount == 0:
        await connection.execute(insert(replicas).values(**values, created_at=now))


async def delete_replica(connection: AsyncConnection, id: str) -> None:
    await connection.execute(delete(replicas).where(replicas.c.id == id))


async def model_dates(connection: AsyncConnection, names: Iterable[str], now: int) -> dict[str, int]:
    """When each name was first seen, for some of them now."""
    dates = {row.name: row.created_at for row in await connection.execute(select(models))}
    new = [name for name in dict.fromkeys(names) if name not in dates]
    if new:
        await connection.execute(insert(models), [{"name": name, "created_at": now} for name in new])
    return dates | dict.fromkeys(new, now)
