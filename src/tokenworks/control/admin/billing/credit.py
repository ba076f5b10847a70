"""What the operator puts onto a balance and takes from it: grants, top-ups, adjustments, holds."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from tokenworks.control.access import Actor, WriteBilling
from tokenworks.control.admin.billing.shapes import (
    IdempotencyKey,
    Money,
    OrganizationId,
    SignedUsd,
    Usd,
    book_of,
    key_of,
    money,
    nano,
)
from tokenworks.control.admin.organization.shapes import Wish, missing
from tokenworks.control.changes import Change, changing
from tokenworks.control.ledger import accounts, corrections, posting
from tokenworks.control.ledger.accounts import Account, Kind, Transfer
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import ledger
from tokenworks.control.storage.ledger import Transaction
from tokenworks.core.errors import InvalidRequest

router = APIRouter(prefix="/admin/v1/billing", tags=["billing"])

Memo = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Credit(Wish):
    amount_usd: Usd
    memo: Memo = Field(description="Why; the customer sees it.")


class Adjustment(Wish):
    amount_usd: SignedUsd = Field(description="In the customer's favour when positive.")
    memo: Memo


class Topup(Wish):
    amount_usd: Usd
    reference: Memo = Field(description="Of the payment, as on the bank's statement.")


class Posted(BaseModel):
    object: Literal["billing.posted"] = "billing.posted"
    organization_id: str
    sequence: int
    kind: Kind
    amount: Money = Field(description="What it did to the balance.")
    new: bool = Field(description="False: this idempotency key had posted it before.")
    balance: Money = Field(description="After it.")


class RefundWish(Wish):
    request_id: str = Field(min_length=1, max_length=200)
    amount_usd: Usd | None = Field(None, description="All that is left of its charge when left out.")
    reason: Memo


class Refund(Posted):
    credit_note: str | None = Field(description="Its number, when the month was invoiced already.")


@router.post("/grants")
async def grant(
    body: Credit,
    services: ServicesDep,
    actor: WriteBilling,
    organization_id: OrganizationId = None,
    key: IdempotencyKey = None,
) -> Posted:
    """Credit that nobody paid for."""
    amount = nano(body.amount_usd)
    wanted = _new(services, Kind.GRANT, accounts.grant(amount), key_of(key), memo=body.memo)
    return await _post(services, actor, organization_id, wanted)


@router.post("/topups")
async def topup(
    body: Topup,
    services: ServicesDep,
    actor: WriteBilling,
    organization_id: OrganizationId = None,
    key: IdempotencyKey = None,
) -> Posted:
    """Money that came in otherwise than through the payment provider."""
    amount = nano(body.amount_usd)
    wanted = _new(services, Kind.TOPUP, accounts.topup(amount), key_of(key), reference=body.reference)
    return await _post(services, actor, organization_id, wanted)


@router.post("/adjustments")
async def adjust(
    body: Adjustment,
    services: ServicesDep,
    actor: WriteBilling,
    organization_id: OrganizationId = None,
    key: IdempotencyKey = None,
) -> Posted:
    """A correction that no other call stands for."""
    amount = nano(body.amount_usd)
    if amount == 0:
        raise InvalidRequest("amount_usd: 0 adjusts nothing.", param="amount_usd")
    wanted = _new(services, Kind.ADJUSTMENT, accounts.adjustment(amount), key_of(key), memo=body.memo)
    return await _post(services, actor, organization_id, wanted)


@router.post("/holds")
async def hold(
    body: Credit,
    services: ServicesDep,
    actor: WriteBilling,
    organization_id: OrganizationId = None,
    key: IdempotencyKey = None,
) -> Posted:
    """Set a part of the balance apart: it cannot be spent until it is released."""
    amount = nano(body.amount_usd)
    wanted = _new(services, Kind.HOLD, accounts.hold(amount), key_of(key), memo=body.memo)
    return await _post(services, actor, organization_id, wanted)


@router.post("/holds/{sequence}/release")
async def release(
    sequence: Annotated[int, Path(ge=1, lt=2**63)],
    services: ServicesDep,
    actor: WriteBilling,
    organization_id: OrganizationId = None,
) -> Posted:
    """Give a hold back, whole; once, however often it is asked."""
    async with services.database.read() as connection:
        book = await book_of(connection, actor, organization_id)
        found = await connection.run_sync(ledger.find, book, sequence)
        if found is None or found.kind != Kind.HOLD or found.reference:
            raise missing("hold", str(sequence))
        [held] = await connection.run_sync(ledger.entries, book, sequence)
    moved = accounts.release(held.amount)
    wanted = _new(services, Kind.RELEASE, moved, f"hold:{sequence}", reference=str(sequence))
    return await _post(services, actor, organization_id, wanted)


@router.post("/refunds")
async def refund(
    body: RefundWish,
    services: ServicesDep,
    actor: WriteBilling,
    organization_id: OrganizationId = None,
    key: IdempotencyKey = None,
) -> Refund:
    """Give a request's charge back to the balance: on the next invoice, or as a credit note when that was issued."""
    amount = None if body.amount_usd is None else nano(body.amount_usd)
    now = services.clock.now_ns()
    wish = corrections.Wish(amount, body.reason, key_of(key), actor.key_id, now, body.request_id)
    async with changing(services, actor) as change:
        book = await book_of(change.connection, actor, organization_id)
        given = await posting.give(change, services, book, corrections.refund, book, wish)
        balances = await change.connection.run_sync(ledger.balances, book)
    return Refund(
        organization_id=book,
        sequence=given.sequence,
        kind=Kind.REFUND if given.note is None else Kind.CREDIT_NOTE,
        amount=money(given.amount),
        new=given.new,
        balance=money(balances.owed(Account.CREDIT)),
        credit_note=None if given.note is None else given.note.number,
    )


def _new(
    services: Services, kind: Kind, moved: list[Transfer], key: str, *, memo: str = "", reference: str = ""
) -> Transaction:
    return Transaction("", kind, moved, services.clock.now_ns(), key, memo, reference)


async def _post(services: Services, actor: Actor, organization_id: str | None, wanted: Transaction) -> Posted:
    async with changing(services, actor) as change:
        book = await book_of(change.connection, actor, organization_id)
        made = replace(wanted, organization_id=book, actor=actor.key_id)
        posted = await posting.post(change, services, made, memo=wanted.memo)
        return await shown(change, made, posted)


async def shown(change: Change, made: Transaction, posted: ledger.Posted) -> Posted:
    balances = await change.connection.run_sync(ledger.balances, made.organization_id)
    return Posted(
        organization_id=made.organization_id,
        sequence=posted.sequence,
        kind=made.kind,
        amount=money(accounts.effect(made.transfers)),
        new=posted.new,
        balance=money(balances.owed(Account.CREDIT)),
    )
