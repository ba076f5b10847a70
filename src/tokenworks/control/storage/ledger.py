"""Posting and reading transactions. Synchronous, for `AsyncConnection.run_sync` and for ingest alike."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, case, func, literal, select, union_all
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from tokenworks.control.ledger.accounts import Account, Kind, Transfer
from tokenworks.control.storage.ledger_tables import (
    ledger_balances,
    ledger_books,
    ledger_entries,
    ledger_transactions,
)

INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class KeyReused(Exception):
    """This idempotency key stands for another transaction already."""


@dataclass(frozen=True, slots=True)
class Sold:
    """What a charge or a refund is about. `hour` is the beginning of the hour in which its attempts began."""

    project_id: str
    key_id: str
    model: str
    hour: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """`key`: posting it again changes nothing."""

    organization_id: str
    kind: Kind
    transfers: Sequence[Transfer]
    at_ns: int
    key: str
    memo: str = ""
    reference: str = ""
    actor: str = ""
    sold: Sold | None = None


@dataclass(frozen=True, slots=True)
class Posted:
    sequence: int
    new: bool


@dataclass(frozen=True, slots=True)
class Balances:
    """Per account what came in and what went out; both only grow."""

    debits: Mapping[str, int] = field(default_factory=dict)
    credits: Mapping[str, int] = field(default_factory=dict)

    def owed(self, account: Account) -> int:
        """Credits less debits: the balance of accounts that are owed or earned."""
        return self.credits.get(account, 0) - self.debits.get(account, 0)

    def owned(self, account: Account) -> int:
        """Debits less credits: the balance of accounts that are owned or spent."""
        return -self.owed(account)

    @property
    def charged(self) -> int:
        """All usage charges ever."""
        return self.credits.get(Account.REVENUE, 0)


def lock(connection: Connection, organization_id: str) -> int:
    """Nobody else posts to this book until the transaction ends. Returns the number of its last transaction."""
    return take_numbers(connection, {organization_id: 0})[organization_id]


def take_numbers(connection: Connection, counts: Mapping[str, int]) -> dict[str, int]:
    """Reserve so many numbers in each book; returns the last one of each. Books are locked in one order."""
    insert = INSERTS[connection.dialect.name](ledger_books)
    grown = insert.on_conflict_do_update(
        index_elements=["organization_id"], set_={"sequence": ledger_books.c.sequence + insert.excluded.sequence}
    )
    rows = [{"organization_id": name, "sequence": counts[name]} for name in sorted(counts)]
    connection.execute(grown, rows)
    query = select(ledger_books).where(ledger_books.c.organization_id.in_(counts))
    return {row.organization_id: row.sequence for row in connection.execute(query)}


def post(connection: Connection, wanted: Transaction) -> Posted:
    """Once per idempotency key; KeyReused when the key was used for something else."""
    lock(connection, wanted.organization_id)
    known = keyed(connection, wanted.organization_id, wanted.key)
    if known is not None:
        same = (known.kind, known.reference, entries(connection, wanted.organization_id, known.sequence))
        if same != (wanted.kind, wanted.reference, list(wanted.transfers)):
            raise KeyReused(wanted.key)
        return Posted(known.sequence, new=False)
    sequence = take_numbers(connection, {wanted.organization_id: 1})[wanted.organization_id]
    sold = wanted.sold
    connection.execute(
        ledger_transactions.insert().values(
            organization_id=wanted.organization_id,
            sequence=sequence,
            at_ns=wanted.at_ns,
            kind=wanted.kind,
            key=wanted.key,
            memo=wanted.memo,
            reference=wanted.reference,
            actor=wanted.actor,
            project_id=sold and sold.project_id,
            key_id=sold and sold.key_id,
            model=sold and sold.model,
            hour=sold and sold.hour,
        )
    )
    if not wanted.transfers:
        return Posted(sequence, new=True)
    moved = [(wanted.organization_id, transfer) for transfer in wanted.transfers]
    connection.execute(
        ledger_entries.insert(),
        [
            {
                "organization_id": wanted.organization_id,
                "sequence": sequence,
                "number": number,
                "debit": transfer.debit,
                "credit": transfer.credit,
                "amount": transfer.amount,
            }
            for number, transfer in enumerate(wanted.transfers)
        ],
    )
    add_to_balances(connection, moved)
    return Posted(sequence, new=True)


def add_to_balances(connection: Connection, moved: Iterable[tuple[str, Transfer]]) -> None:
    sums: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for organization_id, transfer in moved:
        sums[organization_id, transfer.debit][0] += transfer.amount
        sums[organization_id, transfer.credit][1] += transfer.amount
    insert = INSERTS[connection.dialect.name](ledger_balances)
    new = {name: ledger_balances.c[name] + insert.excluded[name] for name in ("debits", "credits")}
    connection.execute(
        insert.on_conflict_do_update(index_elements=["organization_id", "account"], set_=new),
        [
            {"organization_id": organization_id, "account": str(account), "debits": into, "credits": out}
            for (organization_id, account), (into, out) in sorted(sums.items())
        ],
    )


def balances(connection: Connection, organization_id: str) -> Balances:
    rows = connection.execute(select(ledger_balances).where(ledger_balances.c.organization_id == organization_id)).all()
    return Balances({row.account: row.debits for row in rows}, {row.account: row.credits for row in rows})


def keyed(connection: Connection, organization_id: str, key: str) -> Row[Any] | None:
    query = select(ledger_transactions).where(
        ledger_transactions.c.organization_id == organization_id, ledger_transactions.c.key == key
    )
    return connection.execute(query).first()


def find(connection: Connection, organization_id: str, sequence: int) -> Row[Any] | None:
    query = select(ledger_transactions).where(
        ledger_transactions.c.organization_id == organization_id, ledger_transactions.c.sequence == sequence
    )
    return connection.execute(query).first()


def some(
    connection: Connection, organization_id: str, limit: int, before: int | None, *, kind: str | None = None
) -> list[Row[Any]]:
    """Newest first, from the one before `before` on."""
    table = ledger_transactions
    query = select(table).where(table.c.organization_id == organization_id)
    if before is not None:
        query = query.where(table.c.sequence < before)
    if kind is not None:
        query = query.where(table.c.kind == kind)
        if kind != Kind.CHARGE:
            query = query.where(table.c.posting.is_(None))
    return list(connection.execute(query.order_by(table.c.sequence.desc()).limit(limit)).all())


def others(connection: Connection, organization_id: str, *kinds: Kind) -> list[Row[Any]]:
    """Every transaction of these kinds, which are no charges; with `amount`, the sum of its first entry."""
    table, entry = ledger_transactions, ledger_entries
    joined = (
        (entry.c.organization_id == table.c.organization_id)
        & (entry.c.sequence == table.c.sequence)
        & (entry.c.number == 0)
    )
    query = (
        select(table, entry.c.amount)
        .join(entry, joined)
        .where(table.c.organization_id == organization_id, table.c.posting.is_(None), table.c.kind.in_(kinds))
        .order_by(table.c.sequence)
    )
    return list(connection.execute(query).all())


def entries(connection: Connection, organization_id: str, sequence: int) -> list[Transfer]:
    table = ledger_entries
    query = (
        select(table)
        .where(table.c.organization_id == organization_id, table.c.sequence == sequence)
        .order_by(table.c.number)
    )
    return [Transfer(Account(row.debit), Account(row.credit), row.amount) for row in connection.execute(query)]


def entries_of(connection: Connection, organization_id: str, sequences: Sequence[int]) -> dict[int, list[Transfer]]:
    table = ledger_entries
    query = (
        select(table)
        .where(table.c.organization_id == organization_id, table.c.sequence.in_(sequences))
        .order_by(table.c.sequence, table.c.number)
    )
    found: dict[int, list[Transfer]] = defaultdict(list)
    for row in connection.execute(query):
        found[row.sequence].append(Transfer(Account(row.debit), Account(row.credit), row.amount))
    return found


def summed(connection: Connection, organization_id: str | None = None) -> dict[tuple[str, str], tuple[int, int]]:
    """Debits and credits per organization and account, from the entries themselves."""
    table = ledger_entries
    sides = [
        select(
            table.c.organization_id,
            table.c[side].label("account"),
            case((literal(side == "debit"), table.c.amount), else_=0).label("debits"),
            case((literal(side == "credit"), table.c.amount), else_=0).label("credits"),
        )
        for side in ("debit", "credit")
    ]
    if organization_id is not None:
        sides = [side.where(table.c.organization_id == organization_id) for side in sides]
    each = union_all(*sides).subquery()
    query = select(each.c.organization_id, each.c.account, func.sum(each.c.debits), func.sum(each.c.credits))
    rows = connection.execute(query.group_by(each.c.organization_id, each.c.account))
    return {(row[0], row[1]): (int(row[2]), int(row[3])) for row in rows}


def kept(connection: Connection, organization_id: str | None = None) -> dict[tuple[str, str], tuple[int, int]]:
    """The same, as ledger_balances has it."""
    table = ledger_balances
    query = select(table)
    if organization_id is not None:
        query = query.where(table.c.organization_id == organization_id)
    rows = connection.execute(query)
    return {(row.organization_id, row.account): (row.debits, row.credits) for row in rows}


def rebuild(connection: Connection) -> None:
    """Make ledger_balances anew from the entries. Takes every book."""
    for organization_id in connection.execute(select(ledger_books.c.organization_id)).scalars().all():
        lock(connection, organization_id)
    connection.execute(ledger_balances.delete())
    rows = [
        {"organization_id": organization_id, "account": account, "debits": into, "credits": out}
        for (organization_id, account), (into, out) in summed(connection).items()
    ]
    if rows:
        connection.execute(ledger_balances.insert(), rows)
