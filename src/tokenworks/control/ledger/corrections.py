"""Credit notes, which correct an issued invoice, and giving a request's charge back."""

from dataclasses import dataclass, replace

from sqlalchemy.engine import Connection

from tokenworks.control.ledger import accounts, months
from tokenworks.control.ledger.accounts import Kind
from tokenworks.control.ledger.budget import tax_on
from tokenworks.control.ledger.invoicing import ROUNDING, shown
from tokenworks.control.storage import invoices, ledger, proofs
from tokenworks.control.storage.invoices import CREDIT_NOTE, Issued
from tokenworks.control.storage.ledger import KeyReused, Sold, Transaction
from tokenworks.control.storage.rollup import HOUR
from tokenworks.core.errors import InvalidRequest, NotFound
from tokenworks.core.money import nano_to_usd


@dataclass(frozen=True, slots=True)
class Wish:
    """`amount` without tax, in nano-dollars; None: all that is left. The same `key` gives it back once."""

    amount: int | None
    reason: str
    key: str
    actor: str
    now_ns: int
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    """`note` is None where the next invoice will show it."""

    sequence: int
    amount: int
    new: bool
    note: Issued | None


def credit(connection: Connection, corrected: Issued, wish: Wish) -> Given:
    """A credit note. InvalidRequest when the invoice has not so much left."""
    organization_id = corrected.organization_id
    ledger.lock(connection, organization_id)
    known = ledger.keyed(connection, organization_id, wish.key)
    if known is not None:
        return _known_note(connection, known.sequence, known.memo, corrected, wish)
    notes = [each for each in invoices.every(connection, organization_id) if each.corrects == corrected.number]
    left = corrected.charged - corrected.refunded - sum(each.refunded for each in notes)
    net = left if wish.amount is None else wish.amount
    if not 0 < net <= left:
        raise InvalidRequest(
            f"amount_usd: of {corrected.number} {nano_to_usd(left)} USD are left without tax.", param="amount_usd"
        )
    rate, taxed = corrected.document["tax"]["basis_points"], corrected.document["tax"]["nano_usd"]
    tax_left = taxed - sum(each.total - each.refunded for each in notes)
    tax = tax_left if net == left else min(tax_on(net, rate), tax_left)
    now = wish.now_ns // 1_000_000_000
    number = invoices.next_number(connection, CREDIT_NOTE, int(months.of(now)[:4]))
    document = {
        **{name: corrected.document[name] for name in ("organization_id", "seller", "customer", "month", "currency")},
        "object": "credit_note",
        "number": number,
        "corrects": corrected.number,
        "issued_at": now,
        "reason": wish.reason,
        "request_id": wish.request_id,
        "net": shown(net),
        "tax": {"basis_points": rate, **shown(tax)},
        "total": shown(net + tax),
        "rounding": ROUNDING,
    }
    moved = accounts.credit_note(net, tax, invoices.open_amount(connection, organization_id, corrected.number))
    posted = ledger.post(
        connection,
        Transaction(
            organization_id, Kind.CREDIT_NOTE, moved, wish.now_ns, wish.key, number, corrected.number, wish.actor
        ),
    )
    made = Issued(
        number, organization_id, CREDIT_NOTE, corrected.month, corrected.period_end, corrected.number, now, 0, net,
        net + tax, 0, document,
    )  # fmt: skip
    invoices.add(connection, made)
    return Given(posted.sequence, net, True, made)


def refund(connection: Connection, organization_id: str, wish: Wish) -> Given:
    """Of a request's charge: on the next invoice, or as a credit note when its month was invoiced."""
    ledger.lock(connection, organization_id)
    attempts = proofs.charged_attempts(connection, organization_id, wish.request_id)
    if not attempts:
        raise NotFound(f"No request {wish.request_id!r} was charged to this organization.", code="request_not_found")
    second = attempts[0]["opened_ns"] // 1_000_000_000
    issued = invoices.of_month(connection, organization_id, months.of(second))
    known = ledger.keyed(connection, organization_id, wish.key)
    if known is not None and known.kind == Kind.REFUND:
        amount = ledger.entries(connection, organization_id, known.sequence)[0].amount
        if known.reference != wish.request_id or wish.amount not in (None, amount):
            raise KeyReused(wish.key)
        return Given(known.sequence, amount, False, None)
    left = sum(each["charge"] for each in attempts) - given_back(connection, organization_id, wish.request_id)
    amount = left if wish.amount is None else wish.amount
    if known is None and not 0 < amount <= left:
        raise InvalidRequest(f"amount_usd: of this request {nano_to_usd(left)} USD are left.", param="amount_usd")
    if issued is not None:
        return credit(connection, issued, wish if known is not None else replace(wish, amount=amount))
    sold = Sold(attempts[0]["project_id"], attempts[0]["key_id"], attempts[0]["model"], second // HOUR * HOUR)
    moved = accounts.refund(amount)
    wanted = Transaction(
        organization_id, Kind.REFUND, moved, wish.now_ns, wish.key, wish.reason, wish.request_id, wish.actor, sold
    )
    return Given(ledger.post(connection, wanted).sequence, amount, True, None)


def _known_note(connection: Connection, sequence: int, number: str, corrected: Issued, wish: Wish) -> Given:
    note = invoices.find(connection, number)
    same = note is not None and note.corrects == corrected.number and wish.amount in (None, note.refunded)
    if note is None or not same or note.document["request_id"] != wish.request_id:
        raise KeyReused(wish.key)
    return Given(sequence, note.refunded, False, note)


def given_back(connection: Connection, organization_id: str, request_id: str) -> int:
    """What was given back of a request."""
    refunds = ledger.others(connection, organization_id, Kind.REFUND)
    notes = [each.number for each in invoices.every(connection, organization_id) if each.kind == CREDIT_NOTE]
    documents = invoices.documents(connection, notes)
    of_notes: int = sum(each["net"]["nano_usd"] for each in documents if each["request_id"] == request_id)
    of_refunds: int = sum(row.amount for row in refunds if row.reference == request_id)
    return of_notes + of_refunds
