"""Top-ups through the payment provider, its events, and what usage it was told."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection

from tokenworks.control.ledger.accounts import Account
from tokenworks.control.storage.ledger_tables import (
    billing_profiles,
    ledger_balances,
    meter_events,
    payment_events,
    payments,
)


@dataclass(frozen=True, slots=True)
class Payment:
    id: str
    organization_id: str
    amount: int
    """Nano-dollars."""
    status: str
    """open | paid | expired | failed"""
    checkout: str
    intent: str | None
    url: str
    refunded: int
    created_at: int
    paid_at: int | None = None


@dataclass(frozen=True, slots=True)
class Unreported:
    organization_id: str
    customer: str
    amount: int
    """Charged and not told, in nano-dollars."""
    told: int


def find(connection: Connection, id: str) -> Payment | None:
    row = connection.execute(select(payments).where(payments.c.id == id)).first()
    return None if row is None else Payment(*row)


def some(connection: Connection, organization_id: str, limit: int) -> list[Payment]:
    """Newest first."""
    query = select(payments).where(payments.c.organization_id == organization_id)
    rows = connection.execute(query.order_by(payments.c.created_at.desc(), payments.c.id).limit(limit))
    return [Payment(*row) for row in rows]


def add(connection: Connection, made: Payment) -> None:
    connection.execute(insert(payments).values(**asdict(made)))


def change(connection: Connection, id: str, **values: Any) -> None:
    connection.execute(update(payments).where(payments.c.id == id).values(**values))


def is_known(connection: Connection, event_id: str) -> bool:
    return connection.execute(select(payment_events.c.id).where(payment_events.c.id == event_id)).first() is not None


def remember(connection: Connection, event_id: str, kind: str, at: int) -> None:
    connection.execute(insert(payment_events).values(id=event_id, kind=kind, at=at))


def unreported(connection: Connection) -> list[Unreported]:
    """Of every organization that pays later and is known to the payment provider: what was charged and not told."""
    told = (
        select(meter_events.c.organization_id, func.sum(meter_events.c.amount).label("told"))
        .group_by(meter_events.c.organization_id)
        .subquery()
    )
    query = (
        select(
            billing_profiles.c.organization_id,
            billing_profiles.c.customer,
            ledger_balances.c.credits,
            func.coalesce(told.c.told, 0),
        )
        .join(ledger_balances, ledger_balances.c.organization_id == billing_profiles.c.organization_id)
        .outerjoin(told, told.c.organization_id == billing_profiles.c.organization_id)
        .where(
            ledger_balances.c.account == Account.REVENUE.value,
            billing_profiles.c.customer.is_not(None),
            billing_profiles.c.mode == "postpaid",
        )
    )
    return [Unreported(owner, customer, charged - int(told), int(told)) for owner, customer, charged, told in
            connection.execute(query)]  # fmt: skip


def begin_reporting(connection: Connection, organization_id: str, now: int) -> None:
    """What was charged until now is nothing to report: it was paid before, or invoiced otherwise."""
    charged = select(ledger_balances.c.credits).where(
        ledger_balances.c.organization_id == organization_id, ledger_balances.c.account == Account.REVENUE.value
    )
    told = select(func.sum(meter_events.c.amount)).where(meter_events.c.organization_id == organization_id)
    before = int(connection.execute(told).scalar() or 0)
    left = int(connection.execute(charged).scalar() or 0) - before
    if left > 0:
        values = {"id": f"{organization_id}-{before}-skipped", "organization_id": organization_id, "amount": left}
        connection.execute(insert(meter_events).values(**values, created_at=now, sent_at=now))


def add_meter_event(connection: Connection, id: str, organization_id: str, amount: int, now: int) -> None:
    connection.execute(
        insert(meter_events).values(id=id, organization_id=organization_id, amount=amount, created_at=now)
    )


def unsent(connection: Connection, limit: int) -> list[tuple[str, str, int, int]]:
    """Id, customer, amount and time of what the provider has not taken yet."""
    query = (
        select(meter_events.c.id, billing_profiles.c.customer, meter_events.c.amount, meter_events.c.created_at)
        .join(billing_profiles, billing_profiles.c.organization_id == meter_events.c.organization_id)
        .where(meter_events.c.sent_at.is_(None), billing_profiles.c.customer.is_not(None))
        .order_by(meter_events.c.created_at, meter_events.c.id)
        .limit(limit)
    )
    return [(row[0], row[1], row[2], row[3]) for row in connection.execute(query)]


def sent(connection: Connection, id: str, now: int) -> None:
    connection.execute(update(meter_events).where(meter_events.c.id == id).values(sent_at=now))
