"""The audit log. Rows are only ever added: triggers of the database refuse anything else."""

from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.pages import Page, page
from tokenworks.control.storage.tables import audit_log


@dataclass(frozen=True, slots=True)
class Entry:
    """Who did what to which, when and from where. `before` and `after` hold no secret."""

    id: str
    organization_id: str
    at_ns: int
    actor: dict[str, Any]
    actor_id: str
    actor_email: str
    address: str
    request_id: str
    action: str
    outcome: str
    """done | refused"""
    resource_id: str
    project_id: str = ""
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """None and empty lists select everything."""

    bounds_ns: tuple[int | None, int | None] = (None, None)
    """From, and up to but not with."""
    columns: dict[str, list[str] | None] = field(default_factory=dict)


async def append(connection: AsyncConnection, entry: Entry) -> None:
    await connection.execute(insert(audit_log).values(**asdict(entry)))


async def some(
    connection: AsyncConnection,
    organization_id: str,
    chosen: Filter,
    limit: int,
    after: str | None,
    *,
    descending: bool = True,
) -> Page[Entry]:
    query = select(audit_log).where(audit_log.c.organization_id == organization_id)
    start, end = chosen.bounds_ns
    if start is not None:
        query = query.where(audit_log.c.at_ns >= start)
    if end is not None:
        query = query.where(audit_log.c.at_ns < end)
    for name, values in chosen.columns.items():
        if values:
            query = query.where(audit_log.c[name].in_(values))
    order = (audit_log.c.at_ns, audit_log.c.id)
    return await page(connection, query, order, limit, after, lambda row: Entry(**row._mapping), descending=descending)
