"""What was spent of budgets, out of the ledger's own sums, and which of their thresholds were passed."""

from collections.abc import Collection

from sqlalchemy import Table, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.ledger import INSERTS
from tokenworks.control.storage.ledger_tables import ledger_books
from tokenworks.control.storage.rollup import HOUR
from tokenworks.control.storage.tables import budget_alerts, gateway_positions, usage, usage_hourly
from tokenworks.core.caller import OPERATOR
from tokenworks.snapshot.records import LimitRecord

_NANO = 1_000_000_000
_COLUMNS = {"key": "key_id", "project": "project_id", "organization": "organization_id", "model": "model"}


async def pages(connection: AsyncConnection, organizations: Collection[str]) -> dict[str, int]:
    """How far each organization's book is written: where that has not moved, nothing was spent."""
    query = select(ledger_books).where(ledger_books.c.organization_id.in_(organizations))
    return {row.organization_id: row.sequence for row in await connection.execute(query)}


async def shipped(connection: AsyncConnection) -> dict[str, int]:
    """By gateway: the number of the record that is wanted next."""
    return {row.gateway_id: row.next_sequence for row in await connection.execute(select(gateway_positions))}


async def spent(connection: AsyncConnection, budget: LimitRecord, organization_id: str, begins: int) -> int:
    """Nano-dollars of the attempts that began at `begins` (Unix seconds) or later and are charged for."""
    if budget.scope == "provider":
        return await _sum(connection, usage, budget, organization_id, (begins * _NANO, None))
    whole = -(-begins // HOUR) * HOUR
    total = await _sum(connection, usage_hourly, budget, organization_id, (whole, None))
    if whole != begins:  # a border within an hour
        total += await _sum(connection, usage, budget, organization_id, (begins * _NANO, whole * _NANO))
    return total


async def _sum(
    connection: AsyncConnection, table: Table, budget: LimitRecord, organization_id: str, span: tuple[int, int | None]
) -> int:
    column = table.c.hour if table is usage_hourly else table.c.opened_ns
    # What the operator asked for costs it, and is sold to nobody.
    taken = case((table.c.organization_id == OPERATOR, table.c.cost), else_=table.c.charge)
    query = select(func.coalesce(func.sum(taken), 0)).where(column >= span[0])
    if span[1] is not None:
        query = query.where(column < span[1])
    if table is usage:
        query = query.where(table.c.rolled.is_(True))
    if organization_id:
        query = query.where(table.c.organization_id == organization_id)
    subject = table.c.provider if budget.scope == "provider" else table.c[_COLUMNS[budget.scope]]
    query = query.where(subject == budget.id)
    if budget.model is not None:
        query = query.where(table.c.model == budget.model)
    return int((await connection.execute(query)).scalar_one())


async def passed(connection: AsyncConnection, limit_id: str, begins: int) -> set[int]:
    query = select(budget_alerts.c.threshold).where(
        budget_alerts.c.limit_id == limit_id, budget_alerts.c.begins_at == begins
    )
    return set((await connection.execute(query)).scalars())


async def passing(
    connection: AsyncConnection, limit_id: str, begins: int, threshold: int, *, spent: int, now_ns: int
) -> bool:
    """Whether this is the first to note it."""
    row = {"limit_id": limit_id, "begins_at": begins, "threshold": threshold, "at_ns": now_ns, "spent": spent}
    insert = INSERTS[connection.dialect.name](budget_alerts).values(**row).on_conflict_do_nothing()
    return bool((await connection.execute(insert)).rowcount)
