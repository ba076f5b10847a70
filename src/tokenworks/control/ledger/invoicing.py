"""Invoices: drafts of any month, and issued ones, which never change.

An invoice holds all usage charges of its month, and those of earlier months that came after their invoices were issued.
Months are issued in their order. What an invoice asks for is what the balance does not pay, in whole cents; the rest of
a cent stays on the balance and comes with the next one.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.engine import Connection

from tokenworks.control.ledger import accounts, months
from tokenworks.control.ledger.accounts import Account, Kind
from tokenworks.control.ledger.budget import tax_on
from tokenworks.control.ledger.lines import Group, Rates, lines
from tokenworks.control.ledger.payments.base import NANO_PER_CENT
from tokenworks.control.ledger.rates import rates_of
from tokenworks.control.storage import billing, invoices, ledger
from tokenworks.control.storage.invoices import INVOICE, Issued, Summary
from tokenworks.control.storage.ledger import Transaction
from tokenworks.core.errors import InvalidRequest
from tokenworks.core.money import nano_to_usd
from tokenworks.core.usage import KINDS

ROUNDING = (
    "Each attempt is charged as a whole and rounded half up to a nano-dollar; lines divide that sum exactly. Tax is "
    "rounded half up to a nano-dollar. The amount due is rounded down to whole cents; the rest stays on the balance."
)


@dataclass(frozen=True, slots=True)
class Bill:
    """An invoice before it has a number. Amounts are nano-dollars."""

    month: str
    groups: list[Group]
    refunds: list[Any]
    tax_basis_points: int
    later: int
    """Charges that the balance holds already and a later invoice will."""
    balance: int

    @property
    def charged(self) -> int:
        return sum(group.charge for group in self.groups)

    @property
    def refunded(self) -> int:
        return sum(row.amount for row in self.refunds)

    @property
    def tax(self) -> int:
        return max(tax_on(self.charged - self.refunded, self.tax_basis_points), 0)

    @property
    def total(self) -> int:
        return self.charged - self.refunded + self.tax

    @property
    def due(self) -> int:
        lacking = -(self.balance - self.tax + self.later)
        return max(lacking, 0) // NANO_PER_CENT * NANO_PER_CENT


def bill(connection: Connection, organization_id: str, month: str) -> Bill:
    """As it is now."""
    start, end = months.span(month)
    issued = [each for each in invoices.every(connection, organization_id) if each.kind == INVOICE]
    groups = invoices.groups(connection, organization_id, month, start, end)
    balances = ledger.balances(connection, organization_id)
    later = invoices.charged_since(connection, organization_id, end)
    known = sum(each.charged for each in issued)
    if balances.charged - later - known != sum(group.charge for group in groups):
        groups = [*_late(connection, organization_id, issued, month), *groups]
    with_refunds = invoices.documents(connection, [each.number for each in issued if each.refunded])
    told = {each["sequence"] for document in with_refunds for each in document["refunds"]}
    refunds = [
        row
        for row in ledger.others(connection, organization_id, Kind.REFUND)
        if row.sequence not in told and row.hour < end
    ]
    profile = billing.profile(connection, organization_id)
    balance = balances.owed(Account.CREDIT)
    return Bill(month, groups, refunds, profile.tax_basis_points, later, balance)


def _late(connection: Connection, organization_id: str, issued: list[Summary], month: str) -> list[Group]:
    """Of earlier months, what no invoice has: by month, its groups less those on invoices."""
    start, _ = months.span(month)
    told: dict[tuple[Any, ...], Group] = {}
    documents = invoices.documents(connection, [each.number for each in issued])
    for stated in (_stated(each) for document in documents for each in document["groups"]):
        known = told.get(stated.identity)
        told[stated.identity] = stated if known is None else known.less(_negative(stated))
    found = []
    day = invoices.first_charged_day(connection, organization_id, 0, start)
    while day is not None:
        earlier = months.of(day)
        begin, end = months.span(earlier)
        for group in invoices.groups(connection, organization_id, earlier, begin, end):
            known = told.get(group.identity)
            rest = group if known is None else group.less(known)
            if rest.charge:
                found.append(rest)
        day = invoices.first_charged_day(connection, organization_id, end, start)
    return found


def draft(connection: Connection, organization_id: str, month: str, now: int) -> dict[str, Any]:
    """The month as it stands; nothing is posted."""
    return _document(connection, organization_id, bill(connection, organization_id, month), None, now)


def issue(connection: Connection, organization_id: str, month: str, now: int, actor: str) -> list[tuple[Issued, bool]]:
    """The invoices of every month up to this one that has none and needs one, and of this one; whether each is new."""
    _, end = months.span(month)
    if now < end:
        raise InvalidRequest(f"month: {month} has not ended (in UTC); its draft can be seen.", param="month")
    ledger.lock(connection, organization_id)
    found: list[tuple[Issued, bool]] = []
    while (pending := _pending(connection, organization_id, month, end)) is not None:
        found.append((_issue(connection, organization_id, pending, now, actor), True))
    known = invoices.of_month(connection, organization_id, month)
    if known is not None and all(each.number != known.number for each, _ in found):
        found.append((known, False))
    return found


def _pending(connection: Connection, organization_id: str, month: str, end: int) -> str | None:
    ends = [each.period_end for each in invoices.every(connection, organization_id) if each.kind == INVOICE]
    last = max(ends, default=0)
    day = invoices.first_charged_day(connection, organization_id, last, end)
    if day is not None:
        return months.of(day)
    if last >= end:
        return None
    charged = ledger.balances(connection, organization_id).charged
    late = charged - billing.invoiced(connection, organization_id)[0]
    late -= invoices.charged_since(connection, organization_id, last)
    return month if late else None


def _issue(connection: Connection, organization_id: str, month: str, now: int, actor: str) -> Issued:
    made = bill(connection, organization_id, month)
    number = invoices.next_number(connection, INVOICE, int(month[:4]))
    document = _document(connection, organization_id, made, number, now)
    moved = accounts.invoice(made.tax, made.due)
    key = f"invoice:{month}"
    transaction = Transaction(organization_id, Kind.INVOICE, moved, now * 10**9, key, "", number, actor)
    ledger.post(connection, transaction)
    end = months.span(month)[1]
    issued = Issued(
        number, organization_id, INVOICE, month, end, None, now, made.charged, made.refunded, made.total, made.due,
        document,
    )  # fmt: skip
    invoices.add(connection, issued)
    return issued


def _document(connection: Connection, organization_id: str, made: Bill, number: str | None, now: int) -> dict[str, Any]:
    names = invoices.names(connection, organization_id)
    start, end = months.span(made.month)
    return {
        "object": "invoice",
        "number": number,
        "status": "draft" if number is None else "issued",
        "issued_at": None if number is None else now,
        "organization_id": organization_id,
        "seller": _party(connection, invoices.seller(connection)),
        "customer": _party(connection, organization_id),
        "month": made.month,
        "period": {"start": start, "end": end, "time_zone": "UTC"},
        "currency": "USD",
        "lines": list(_lines(made.groups, rates_of(connection), names)),
        "refunds": [
            {
                "sequence": row.sequence,
                "request_id": row.reference,
                "reason": row.memo,
                "model": row.model,
                **shown(row.amount, "amount_"),
            }
            for row in made.refunds
        ],
        "charged": shown(made.charged),
        "refunded": shown(made.refunded),
        "tax": {"basis_points": made.tax_basis_points, **shown(made.tax)},
        "total": shown(made.total),
        "due": shown(made.due),
        "paid_from_balance": shown(made.total - made.due),
        "rounding": ROUNDING,
        "groups": [_stating(group) for group in made.groups],
    }


def _lines(groups: Iterable[Group], rates: Rates, names: dict[str, str]) -> Iterable[dict[str, Any]]:
    for group in groups:
        for line in lines(group, rates(group.price)):
            yield {
                "month": group.month,
                "project_id": group.project_id,
                "project": names.get(group.project_id, ""),
                "key_id": group.key_id,
                "key": names.get(group.key_id, ""),
                "model": group.model,
                "tier": "batch" if group.batch else group.tier or "standard",
                "price": group.price,
                "requests": group.requests,
                **line.shown(),
            }


def _party(connection: Connection, organization_id: str) -> dict[str, Any]:
    profile = billing.profile(connection, organization_id)
    return {"name": invoices.organization_name(connection, organization_id), **profile.address}


def shown(nano: int, prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}nano_usd": nano, f"{prefix}usd": nano_to_usd(nano)}


def _stating(group: Group) -> dict[str, Any]:
    """What is needed to see later what was on this invoice."""
    counts = {kind: count for kind, count in group.counts.items() if count}
    return {
        "month": group.month,
        "project_id": group.project_id,
        "key_id": group.key_id,
        "model": group.model,
        "price": group.price,
        "batch": group.batch,
        "tier": group.tier,
        "requests": group.requests,
        "charge": group.charge,
        "counts": counts,
    }


def _stated(said: dict[str, Any]) -> Group:
    return Group(**said)


def _negative(group: Group) -> Group:
    counts = {kind: -group.counts.get(kind, 0) for kind in KINDS}
    return replace(group, requests=-group.requests, charge=-group.charge, counts=counts)
