"""Invoices and credit notes as they were issued, and what an invoice is made of."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from sqlalchemy import Row, case, func, select
from sqlalchemy.engine import Connection

from tokenworks.control.ledger.accounts import Account
from tokenworks.control.ledger.lines import Group
from tokenworks.control.storage.ledger import INSERTS
from tokenworks.control.storage.ledger_tables import (
    document_series,
    invoices,
    ledger_entries,
    ledger_transactions,
)
from tokenworks.control.storage.reports import UNANSWERED
from tokenworks.control.storage.tables import api_keys, organizations, projects, service_accounts, usage_daily
from tokenworks.core.usage import KINDS

INVOICE, CREDIT_NOTE = "invoice", "credit_note"
_PREFIX = {INVOICE: "INV", CREDIT_NOTE: "CN"}
_DIMENSIONS = ("project_id", "key_id", "model", "price", "batch", "tier")


@dataclass(frozen=True, slots=True)
class Summary:
    """An issued one without its document, which may be long."""

    number: str
    organization_id: str
    kind: str
    month: str
    period_end: int
    corrects: str | None
    issued_at: int
    charged: int
    refunded: int
    total: int
    due: int


@dataclass(frozen=True, slots=True)
class Issued(Summary):
    document: dict[str, Any]


_SUMMARY = tuple(field.name for field in fields(Summary))


def groups(connection: Connection, organization_id: str, month: str, start: int, end: int) -> list[Group]:
    """All usage that cost something and began in these days (Unix seconds; `end` is exclusive)."""
    daily = usage_daily.c
    answered = func.sum(case((daily.outcome.not_in(UNANSWERED), daily.attempts), else_=0))
    dimensions = [daily[name] for name in _DIMENSIONS]
    query = (
        select(*dimensions, answered, func.sum(daily.charge), *(func.sum(daily[kind]) for kind in KINDS))
        .where(daily.organization_id == organization_id, daily.day >= start, daily.day < end)
        .group_by(*dimensions)
        .having(func.sum(daily.charge) > 0)
        .order_by(*dimensions)
    )
    found = []
    for row in connection.execute(query):
        dimension, (requests, charge, *counts) = row[: len(_DIMENSIONS)], row[len(_DIMENSIONS) :]
        numbers = dict(zip(KINDS, map(int, counts), strict=True))
        who = dict(zip(_DIMENSIONS, dimension, strict=True))
        found.append(Group(month, **who, requests=int(requests), charge=int(charge), counts=numbers))
    return found


def charged_since(connection: Connection, organization_id: str, start: int) -> int:
    daily = usage_daily.c
    query = select(func.sum(daily.charge)).where(daily.organization_id == organization_id, daily.day >= start)
    return int(connection.execute(query).scalar() or 0)


def first_charged_day(connection: Connection, organization_id: str, start: int, end: int) -> int | None:
    daily = usage_daily.c
    query = select(func.min(daily.day)).where(
        daily.organization_id == organization_id, daily.day >= start, daily.day < end, daily.charge > 0
    )
    return connection.execute(query).scalar()


def charged_organizations(connection: Connection) -> Sequence[str]:
    query = select(usage_daily.c.organization_id).where(usage_daily.c.charge > 0).distinct()
    return connection.execute(query.order_by(usage_daily.c.organization_id)).scalars().all()


def names(connection: Connection, organization_id: str) -> dict[str, str]:
    """Of its projects and keys, by id. Those of service accounts are often named alike, and begin with its name."""
    its = select(projects.c.id, projects.c.name).where(projects.c.organization_id == organization_id)
    found = {row.id: row.name for row in connection.execute(its)}
    owned = api_keys.outerjoin(service_accounts, service_accounts.c.id == api_keys.c.service_account_id)
    keys = select(api_keys.c.id, api_keys.c.name, service_accounts.c.name.label("owner")).select_from(owned)
    keys = keys.where(api_keys.c.project_id.in_(found))
    return found | {row.id: f"{row.owner}: {row.name}" if row.owner else row.name for row in connection.execute(keys)}


def seller(connection: Connection) -> str:
    """The operator's own organization: the first one there was."""
    query = select(organizations.c.id).order_by(organizations.c.created_at, organizations.c.id).limit(1)
    return str(connection.execute(query).scalar_one())


def organization_name(connection: Connection, organization_id: str) -> str:
    query = select(organizations.c.name).where(organizations.c.id == organization_id)
    return str(connection.execute(query).scalar() or organization_id)


def next_number(connection: Connection, kind: str, year: int) -> str:
    """Without gaps: the series stays locked until the document is committed."""
    name = f"{_PREFIX[kind]}-{year}"
    insert = INSERTS[connection.dialect.name](document_series).values(name=name, last=1)
    connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"last": document_series.c.last + 1}))
    last = connection.execute(select(document_series.c.last).where(document_series.c.name == name)).scalar_one()
    return f"{name}-{last:06d}"


def add(connection: Connection, made: Issued) -> None:
    connection.execute(invoices.insert().values(**asdict(made)))


def find(connection: Connection, number: str) -> Issued | None:
    row = connection.execute(select(invoices).where(invoices.c.number == number)).first()
    return None if row is None else _issued(row)


def of_month(connection: Connection, organization_id: str, month: str) -> Issued | None:
    query = select(invoices).where(
        invoices.c.organization_id == organization_id, invoices.c.month == month, invoices.c.kind == INVOICE
    )
    row = connection.execute(query).first()
    return None if row is None else _issued(row)


def every(connection: Connection, organization_id: str) -> list[Summary]:
    """In the order of their issue."""
    query = select(*(invoices.c[name] for name in _SUMMARY)).where(invoices.c.organization_id == organization_id)
    return [Summary(*row) for row in connection.execute(query.order_by(invoices.c.issued_at, invoices.c.number))]


def documents(connection: Connection, numbers: Iterable[str]) -> list[dict[str, Any]]:
    query = select(invoices.c.document).where(invoices.c.number.in_(list(numbers)))
    return list(connection.execute(query).scalars())


def open_amount(connection: Connection, organization_id: str, number: str) -> int:
    """What is still to be paid of an invoice: everything in its name that moved what we are owed."""
    table, entry = ledger_transactions, ledger_entries
    joined = (entry.c.organization_id == table.c.organization_id) & (entry.c.sequence == table.c.sequence)
    signed = case(
        (entry.c.debit == Account.RECEIVABLE.value, entry.c.amount),
        (entry.c.credit == Account.RECEIVABLE.value, -entry.c.amount),
        else_=0,
    )
    query = (
        select(func.sum(signed))
        .select_from(table.join(entry, joined))
        .where(table.c.organization_id == organization_id, table.c.posting.is_(None), table.c.reference == number)
    )
    return int(connection.execute(query).scalar() or 0)


def _issued(row: Row[Any]) -> Issued:
    return Issued(**{name: getattr(row, name) for name in (*_SUMMARY, "document")})
