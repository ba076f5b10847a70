"""Charges for attempts that are complete, in the transaction that takes them up (storage/rollup.py). Hot path.

All attempts that one transaction of ingest completes get one random number, their `posting`. Those of one
organization, project, key, model and hour make up one ledger transaction with the same `posting`, so each attempt
leads to its transaction and each transaction to its attempts.
"""

import secrets
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection

from tokenworks.control.ledger.accounts import Account, Kind, Transfer
from tokenworks.control.storage.ledger import add_to_balances, take_numbers

_TRANSACTION = (
    "organization_id", "sequence", "at_ns", "kind", "project_id", "key_id", "model", "hour", "posting", "attempts",
)  # fmt: skip
_ENTRY = ("organization_id", "sequence", "number", "debit", "credit", "amount")


class Group(NamedTuple):
    """Attempts of one posting. `at_ns` is when the last of them ended."""

    organization_id: str
    project_id: str
    key_id: str
    model: str
    hour: int
    attempts: int
    charge: int
    cost: int
    at_ns: int


def new_posting() -> int:
    return secrets.randbits(62)


def post(connection: Connection, posting: int, groups: Sequence[Group]) -> None:
    """Groups that cost nothing leave no transaction."""
    groups = sorted(group for group in groups if group.charge or group.cost)
    if not groups:
        return
    counts = Counter(group.organization_id for group in groups)
    numbers = take_numbers(connection, counts)
    following = {name: numbers[name] - counts[name] for name in counts}
    transactions, entries, moved = [], [], []
    for group in groups:
        owner = group.organization_id
        following[owner] += 1
        transactions.append(
            (owner, following[owner], group.at_ns, Kind.CHARGE.value, *group[1:5], posting, group.attempts)
        )
        for number, transfer in enumerate(_transfers(group)):
            entries.append((owner, following[owner], number, *_plain(transfer)))
            moved.append((owner, transfer))
    _insert(connection, "ledger_transactions", _TRANSACTION, transactions)
    _insert(connection, "ledger_entries", _ENTRY, entries)
    add_to_balances(connection, moved)


def _transfers(group: Group) -> list[Transfer]:
    """What the customer pays, and what we pay."""
    moved = [
        Transfer(Account.CREDIT, Account.REVENUE, group.charge),
        Transfer(Account.PROVIDER_COST, Account.PAYABLE, group.cost),
    ]
    return [transfer for transfer in moved if transfer.amount]


def _plain(transfer: Transfer) -> tuple[str, str, int]:
    return transfer.debit.value, transfer.credit.value, transfer.amount


def _insert(connection: Connection, table: str, columns: Sequence[str], rows: list[Any]) -> None:
    marks = ["?"] * len(columns)
    if connection.dialect.paramstyle == "numeric_dollar":
        marks = [f"${number}" for number in range(1, len(columns) + 1)]
    statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(marks)})"  # noqa: S608 -- constants
    connection.exec_driver_sql(statement, rows)
