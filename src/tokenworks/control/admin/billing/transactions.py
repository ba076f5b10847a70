"""The book of an organization, line by line: its transactions, their entries, and the attempts that were charged."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from sqlalchemy import Row
from sqlalchemy.engine import Connection

from tokenworks.control.access import ReadBilling, WriteBilling
from tokenworks.control.admin.billing.shapes import Money, OrganizationId, book_of, money
from tokenworks.control.admin.organization.shapes import missing
from tokenworks.control.changes import changing
from tokenworks.control.ledger.accounts import Account, Kind, Transfer, effect
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import ledger, proofs

router = APIRouter(prefix="/admin/v1/billing", tags=["billing"])

NOT_FOR_CUSTOMERS = frozenset({Account.PROVIDER_COST, Account.PAYABLE})
"""What we pay to others is the operator's own business."""
Sequence = Annotated[int, Path(ge=1, lt=2**63)]


class Entry(BaseModel):
    debit: Account
    credit: Account
    amount: Money


class Transaction(BaseModel):
    object: Literal["billing.transaction"] = "billing.transaction"
    organization_id: str
    sequence: int = Field(description="Without gaps in the book of an organization.")
    at: int = Field(description="Unix seconds; of a charge, when the last of its attempts ended.")
    kind: Kind
    amount: Money = Field(description="What it did to the balance.")
    entries: list[Entry]
    memo: str
    reference: str
    actor: str
    project_id: str | None
    key_id: str | None
    model: str | None
    hour: int | None = Field(description="Unix seconds of the hour in which its attempts began.")
    attempts: int | None


class TransactionPage(BaseModel):
    object: Literal["list"] = "list"
    data: list[Transaction]
    has_more: bool
    last_id: int | None


class ChargedAttempt(BaseModel):
    request_id: str
    attempt: int
    opened_at: int
    charge: Money


class Proof(BaseModel):
    object: Literal["billing.proof"] = "billing.proof"
    transaction: Transaction
    data: list[ChargedAttempt] = Field(description="The attempts that were charged; their sum is the amount.")


class Check(BaseModel):
    """`differences` is empty when every balance is the sum of its entries and all charges are those of usage."""

    object: Literal["billing.check"] = "billing.check"
    organizations: int
    transactions: int
    differences: list[str]


@router.get("/transactions")
async def list_all(
    services: ServicesDep,
    actor: ReadBilling,
    organization_id: OrganizationId = None,
    kind: Kind | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[int | None, Query(ge=1, lt=2**63, description="The `last_id` of the page before.")] = None,
) -> TransactionPage:
    """Newest first."""
    async with services.database.read() as connection:
        book = await book_of(connection, actor, organization_id)

        def page(sync: Connection) -> list[Transaction]:
            rows = ledger.some(sync, book, limit + 1, after, kind=kind)
            entries = ledger.entries_of(sync, book, [row.sequence for row in rows])
            return [_shape(row, entries[row.sequence], all_accounts=actor.is_operator) for row in rows]

        found = await connection.run_sync(page)
    data = found[:limit]
    return TransactionPage(data=data, has_more=len(found) > limit, last_id=data[-1].sequence if data else None)


@router.get("/transactions/{sequence}")
async def prove(
    sequence: Sequence, services: ServicesDep, actor: ReadBilling, organization_id: OrganizationId = None
) -> Proof:
    """One transaction and, for a charge, each attempt of it."""
    async with services.database.read() as connection:
        book = await book_of(connection, actor, organization_id)

        def proof(sync: Connection) -> Proof | None:
            row = ledger.find(sync, book, sequence)
            if row is None:
                return None
            entries = ledger.entries(sync, book, sequence)
            return Proof(
                transaction=_shape(row, entries, all_accounts=actor.is_operator),
                data=[_attempt(each) for each in proofs.attempts(sync, row)],
            )

        found = await connection.run_sync(proof)
    if found is None:
        raise missing("transaction", str(sequence))
    return found


@router.get("/check")
async def check(services: ServicesDep, _: WriteBilling) -> Check:
    """Adds up every entry and every hour of usage, and compares."""
    async with services.database.read() as connection:
        return Check(**await connection.run_sync(proofs.check))


@router.post("/rebuild")
async def rebuild(services: ServicesDep, actor: WriteBilling) -> Check:
    """Makes the balances anew from the entries, for a `check` that found a difference."""
    async with changing(services, actor) as change:
        await change.connection.run_sync(ledger.rebuild)
        await change.log("balances.rebuilt", "ledger_balances")
        return Check(**await change.connection.run_sync(proofs.check))


def _shape(row: Row[Any], transfers: list[Transfer], *, all_accounts: bool) -> Transaction:
    shown = [each for each in transfers if all_accounts or not {each.debit, each.credit} & NOT_FOR_CUSTOMERS]
    return Transaction(
        organization_id=row.organization_id,
        sequence=row.sequence,
        at=row.at_ns // 1_000_000_000,
        kind=row.kind,
        amount=money(effect(transfers)),
        entries=[Entry(debit=each.debit, credit=each.credit, amount=money(each.amount)) for each in shown],
        memo=row.memo,
        reference=row.reference,
        actor=row.actor,
        project_id=row.project_id,
        key_id=row.key_id,
        model=row.model,
        hour=row.hour,
        attempts=row.attempts,
    )


def _attempt(row: Mapping[str, Any]) -> ChargedAttempt:
    return ChargedAttempt(
        request_id=row["request_id"],
        attempt=row["attempt"],
        opened_at=row["opened_ns"] // 1_000_000_000,
        charge=money(row["charge"]),
    )
