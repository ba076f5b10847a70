"""The accounts of an organization's book, and what each kind of transaction moves between them.

A `Transfer` takes its amount from one account to another, so whatever is posted sums to zero. Debits are what an
account received: money we hold, or are owed, or spent; credits are where it came from: what we owe, or earned.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Account(StrEnum):
    CREDIT = "credit"
    """What the customer may still spend (credits exceed debits), or has spent beyond it, to be invoiced."""
    HELD = "held"
    """Set apart from `credit` until it is known what becomes of it, as a payment on its way back."""
    RECEIVABLE = "receivable"
    """What issued invoices still ask for."""
    CASH = "cash"
    """Money that came in, less what was paid back."""
    REVENUE = "revenue"
    """Its credits are all usage charges ever, and nothing else."""
    REFUNDS = "refunds"
    """Charges given back."""
    GRANTS = "grants"
    ADJUSTMENTS = "adjustments"
    TAX = "tax"
    """Collected for the state."""
    PROVIDER_COST = "provider_cost"
    PAYABLE = "payable"
    """What we owe to the providers we bought from."""


class Kind(StrEnum):
    CHARGE = "charge"
    GRANT = "grant"
    TOPUP = "topup"
    REFUND = "refund"
    """A charge given back to the balance."""
    ADJUSTMENT = "adjustment"
    HOLD = "hold"
    RELEASE = "release"
    PAYOUT = "payout"
    """A hold that left as money."""
    INVOICE = "invoice"
    PAYMENT = "payment"
    """Money for an invoice."""
    CREDIT_NOTE = "credit_note"


@dataclass(frozen=True, slots=True)
class Transfer:
    """`amount` nano-dollars, more than zero, out of the account `credit` into the account `debit`."""

    debit: Account
    credit: Account
    amount: int


def effect(transfers: Iterable[Transfer]) -> int:
    """What they do to the balance."""
    return sum(each.amount * ((each.credit is Account.CREDIT) - (each.debit is Account.CREDIT)) for each in transfers)


def grant(amount: int) -> list[Transfer]:
    return [Transfer(Account.GRANTS, Account.CREDIT, amount)]


def topup(amount: int) -> list[Transfer]:
    return [Transfer(Account.CASH, Account.CREDIT, amount)]


def refund(amount: int) -> list[Transfer]:
    return [Transfer(Account.REFUNDS, Account.CREDIT, amount)]


def adjustment(amount: int) -> list[Transfer]:
    """In the customer's favour when it is positive."""
    if amount > 0:
        return [Transfer(Account.ADJUSTMENTS, Account.CREDIT, amount)]
    return [Transfer(Account.CREDIT, Account.ADJUSTMENTS, -amount)]


def hold(amount: int) -> list[Transfer]:
    return [Transfer(Account.CREDIT, Account.HELD, amount)]


def release(amount: int) -> list[Transfer]:
    return [Transfer(Account.HELD, Account.CREDIT, amount)]


def payout(amount: int) -> list[Transfer]:
    return [Transfer(Account.HELD, Account.CASH, amount)]


def payment(amount: int) -> list[Transfer]:
    return [Transfer(Account.CASH, Account.RECEIVABLE, amount)]


def invoice(tax: int, due: int) -> list[Transfer]:
    """The tax is taken from the balance; what the balance then lacks is asked for."""
    moved = [Transfer(Account.CREDIT, Account.TAX, tax), Transfer(Account.RECEIVABLE, Account.CREDIT, due)]
    return [transfer for transfer in moved if transfer.amount]


def credit_note(net: int, tax: int, open_amount: int) -> list[Transfer]:
    """Back onto the balance; as far as the invoice is not paid, it asks for so much less."""
    settled = max(min(net + tax, open_amount), 0)
    moved = [
        Transfer(Account.REFUNDS, Account.CREDIT, net),
        Transfer(Account.TAX, Account.CREDIT, tax),
        Transfer(Account.CREDIT, Account.RECEIVABLE, settled),
    ]
    return [transfer for transfer in moved if transfer.amount]
