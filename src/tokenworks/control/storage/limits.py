"""Limits, as gateways get them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.keys import new_id
from tokenworks.control.storage.pages import Page, page
from tokenworks.control.storage.tables import limits
from tokenworks.snapshot.records import LimitRecord


@dataclass(frozen=True, slots=True)
class Terms:
    """What only control knows of a limit. `alert_only`: gateways are not told of it. `thresholds` in percent."""

    alert_only: bool = False
    thresholds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Limit:
    id: str
    organization_id: str
    """Whose limit it is; "" for one that counts everybody's requests."""
    record: LimitRecord
    set_by_operator: bool
    created_at: int
    terms: Terms = Terms()


async def put(
    connection: AsyncConnection,
    organization_id: str,
    record: LimitRecord,
    *,
    operator: bool,
    now: int,
    terms: Terms | None = None,
) -> Limit:
    """New, or in place of the one of this name. `terms` None: as they are."""
    known = await named(connection, record)
    terms = terms or (known.terms if known is not None else Terms())
    values = {
        "amount": record.limit,
        "strict": record.strict,
        "set_by_operator": operator,
        "alert_only": terms.alert_only,
        "thresholds": list(terms.thresholds) or None,
        "utc_offset_minutes": -record.offset // 60,
    }
    if known is not None:
        await connection.execute(update(limits).where(limits.c.id == known.id).values(**values))
        return Limit(known.id, known.organization_id, record, operator, known.created_at, terms)
    made = Limit(new_id("limit"), organization_id, record, operator, now, terms)
    await connection.execute(
        insert(limits).values(
            id=made.id, organization_id=organization_id, created_at=now, **_identity(record), **values
        )
    )
    return made


async def named(connection: AsyncConnection, record: LimitRecord) -> Limit | None:
    query = select(limits).where(*(limits.c[name] == value for name, value in _identity(record).items()))
    row = (await connection.execute(query)).first()
    return None if row is None else _limit(row)


async def find(connection: AsyncConnection, id: str) -> Limit | None:
    row = (await connection.execute(select(limits).where(limits.c.id == id))).first()
    return None if row is None else _limit(row)


async def remove(connection: AsyncConnection, id: str) -> None:
    await connection.execute(delete(limits).where(limits.c.id == id))


async def every(connection: AsyncConnection) -> list[LimitRecord]:
    """Those that gateways enforce."""
    query = select(limits).where(limits.c.alert_only.is_(False))
    return [_limit(row).record for row in await connection.execute(query)]


async def budgets(connection: AsyncConnection) -> list[Limit]:
    query = select(limits).where(limits.c.kind == "spend_nano_usd")
    return [_limit(row) for row in await connection.execute(query.order_by(limits.c.id))]


async def of_subject(connection: AsyncConnection, scope: str, subject: str) -> list[Limit]:
    query = select(limits).where(limits.c.scope == scope, limits.c.subject == subject)
    return [_limit(row) for row in await connection.execute(query.order_by(limits.c.id))]


async def some(
    connection: AsyncConnection, owners: Sequence[str] | None, filters: dict[str, str], limit: int, after: str | None
) -> Page[Limit]:
    """`owners`: of these organizations only. `filters`: by column."""
    query = select(limits).where(*(limits.c[name] == value for name, value in filters.items()))
    if owners is not None:
        query = query.where(limits.c.organization_id.in_(owners))
    return await page(connection, query, (limits.c.created_at, limits.c.id), limit, after, _limit)


def _identity(record: LimitRecord) -> dict[str, Any]:
    return {
        "scope": record.scope,
        "subject": record.id,
        "model": record.model or "",
        "kind": record.kind,
        "window_seconds": record.window,
        "period": record.period,
    }


def _limit(row: Row[Any]) -> Limit:
    record = LimitRecord(
        scope=row.scope,
        id=row.subject,
        model=row.model or None,
        kind=row.kind,
        limit=row.amount,
        window=row.window_seconds,
        period=row.period,
        strict=row.strict,
        offset=-row.utc_offset_minutes * 60,
    )
    terms = Terms(row.alert_only, tuple(row.thresholds or ()))
    return Limit(row.id, row.organization_id, record, row.set_by_operator, row.created_at, terms)
