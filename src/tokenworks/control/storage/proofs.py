"""That the ledger says what usage says, attempt by attempt and in sum."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.engine import Connection

from tokenworks.control.ledger.accounts import Account
from tokenworks.control.storage import ledger
from tokenworks.control.storage.ledger_tables import ledger_books, ledger_transactions
from tokenworks.control.storage.rollup import HOUR
from tokenworks.control.storage.tables import usage, usage_hourly

_HOUR_NS = HOUR * 1_000_000_000


def attempts(connection: Connection, transaction: Row[Any]) -> Sequence[Any]:
    """Those that this charge is made of, found by their organization and hour, which have an index."""
    if transaction.posting is None:
        return []
    begins = transaction.hour * 1_000_000_000
    query = select(usage.c.request_id, usage.c.attempt, usage.c.opened_ns, usage.c.charge).where(
        usage.c.organization_id == transaction.organization_id,
        usage.c.opened_ns >= begins,
        usage.c.opened_ns < begins + _HOUR_NS,
        usage.c.posting == transaction.posting,
        usage.c.project_id == transaction.project_id,
        usage.c.key_id == transaction.key_id,
        usage.c.model == transaction.model,
    )
    order = (usage.c.opened_ns, usage.c.request_id, usage.c.attempt)
    return connection.execute(query.order_by(*order)).mappings().all()


def attempts_of(connection: Connection, request_id: str) -> Sequence[Any]:
    """All of a request, with whatever is known of each."""
    query = select(usage).where(usage.c.request_id == request_id)
    return connection.execute(query.order_by(usage.c.attempt)).mappings().all()


def transaction_of(connection: Connection, attempt: Mapping[str, Any]) -> int | None:
    """The number of the charge that this attempt is in; None when there is none, or it cost nothing."""
    table = ledger_transactions
    query = select(table.c.sequence).where(
        table.c.posting == attempt["posting"],
        table.c.organization_id == attempt["organization_id"],
        table.c.project_id == attempt["project_id"],
        table.c.key_id == attempt["key_id"],
        table.c.model == attempt["model"],
        table.c.hour == attempt["opened_ns"] // _HOUR_NS * HOUR,
    )
    return None if attempt["posting"] is None else connection.execute(query).scalar()


def charged_attempts(connection: Connection, organization_id: str, request_id: str) -> Sequence[Any]:
    """Those of a request that the ledger has taken up, in their order."""
    query = select(usage).where(
        usage.c.request_id == request_id, usage.c.organization_id == organization_id, usage.c.posting.is_not(None)
    )
    return connection.execute(query.order_by(usage.c.attempt)).mappings().all()


def check(connection: Connection) -> dict[str, Any]:
    """What does not add up, in words."""
    differences = []
    summed, kept = ledger.summed(connection), ledger.kept(connection)
    for name in sorted(summed.keys() | kept.keys()):
        if summed.get(name, (0, 0)) != kept.get(name, (0, 0)):
            organization_id, account = name
            was, is_ = kept.get(name), summed.get(name)
            differences.append(
                f"{organization_id}: {account} is kept as {was} (debits, credits), its entries are {is_}"
            )
    sums = select(usage_hourly.c.organization_id, func.sum(usage_hourly.c.charge))
    used = {row[0]: int(row[1]) for row in connection.execute(sums.group_by(usage_hourly.c.organization_id)) if row[1]}
    charged = {owner: sums[1] for (owner, account), sums in summed.items() if account == Account.REVENUE}
    for organization_id in sorted(used.keys() | charged.keys()):
        ours, theirs = charged.get(organization_id, 0), used.get(organization_id, 0)
        if ours != theirs:
            differences.append(f"{organization_id}: {ours} nano-dollars are charged, its usage is {theirs}")
    differences += _gaps(connection)
    numbers = connection.execute(select(func.count(), func.sum(ledger_books.c.sequence))).one()
    return {"organizations": numbers[0], "transactions": int(numbers[1] or 0), "differences": differences}


def _gaps(connection: Connection) -> list[str]:
    """A transaction that is gone would leave its number open."""
    table = ledger_transactions
    counts = select(table.c.organization_id, func.count(), func.max(table.c.sequence)).group_by(table.c.organization_id)
    found = {row[0]: (row[1], row[2]) for row in connection.execute(counts)}
    books = {row.organization_id: row.sequence for row in connection.execute(select(ledger_books)) if row.sequence}
    return [
        f"{organization_id}: {count} transactions, but numbers up to {books.get(organization_id)}"
        for organization_id, (count, last) in sorted(found.items())
        if not count == last == books.get(organization_id)
    ]
