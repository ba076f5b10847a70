"""What an organization has, owes and has used, and how it pays."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy.engine import Connection

from tokenworks.control.access import PayBilling, ReadBilling, WriteBilling
from tokenworks.control.admin.billing.shapes import Money, OrganizationId, book_of, money
from tokenworks.control.admin.organization.shapes import Wish
from tokenworks.control.changes import changing
from tokenworks.control.ledger import posting
from tokenworks.control.ledger.accounts import Account
from tokenworks.control.ledger.budget import spendable_of
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import billing, ledger, payments
from tokenworks.control.storage.billing import Profile

router = APIRouter(prefix="/admin/v1/billing", tags=["billing"])

Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Balance(BaseModel):
    object: Literal["billing.balance"] = "billing.balance"
    organization_id: str
    mode: Literal["postpaid", "prepaid"]
    balance: Money = Field(description="Prepaid and granted, less what was used; negative: used and not yet invoiced.")
    held: Money = Field(description="Set apart, as a payment on its way back.")
    spendable: Money = Field(description="The balance less the tax still to come; the hard budget when prepaid.")
    receivable: Money = Field(description="What issued invoices still ask for.")
    charged: Money = Field(description="All usage charges ever.")
    accounts: dict[str, Money] = Field(description="Every account, as debits less credits; they sum to zero.")


class Address(Wish):
    """What an invoice shows of the customer."""

    name: Line | None = None
    lines: list[Line] = Field(default=[], max_length=6)
    email: Line | None = None
    tax_id: Line | None = None


class TermsWish(Wish):
    mode: Literal["postpaid", "prepaid"] | None = None
    tax_basis_points: int | None = Field(None, ge=0, le=10_000, description="1900 is 19 %.")
    customer: Line | None = Field(None, description="Its id at the payment provider, to report usage under.")


class ProfileShown(BaseModel):
    object: Literal["billing.profile"] = "billing.profile"
    organization_id: str
    mode: Literal["postpaid", "prepaid"]
    tax_basis_points: int
    address: Address
    customer: str | None = Field(description="Its id at the payment provider.")


@router.get("/balance")
async def balance(services: ServicesDep, actor: ReadBilling, organization_id: OrganizationId = None) -> Balance:
    async with services.database.read() as connection:
        book = await book_of(connection, actor, organization_id)
        return await connection.run_sync(_balance, book)


@router.get("/profile")
async def retrieve_profile(
    services: ServicesDep, actor: ReadBilling, organization_id: OrganizationId = None
) -> ProfileShown:
    async with services.database.read() as connection:
        book = await book_of(connection, actor, organization_id)
        return _shape(await connection.run_sync(billing.profile, book))


@router.post("/address")
async def set_address(
    body: Address, services: ServicesDep, actor: PayBilling, organization_id: OrganizationId = None
) -> ProfileShown:
    """Invoices issued from now on show it."""
    async with changing(services, actor) as change:
        book = await book_of(change.connection, actor, organization_id)
        before = await change.connection.run_sync(billing.profile, book)
        after = replace(before, address=body.model_dump(exclude_none=True))
        await change.connection.run_sync(billing.put, after)
        await change.log("billing_address.updated", book, before=before.address, after=after.address)
    return _shape(after)


@router.post("/terms")
async def set_terms(
    body: TermsWish, services: ServicesDep, actor: WriteBilling, organization_id: OrganizationId = None
) -> ProfileShown:
    """Prepaid from now on: the balance becomes a hard budget at every gateway within a second."""
    wanted = body.model_dump(exclude_none=True)
    async with changing(services, actor) as change:
        book = await book_of(change.connection, actor, organization_id)
        before = await change.connection.run_sync(billing.profile, book)
        after = replace(before, **wanted)
        await change.connection.run_sync(billing.put, after)
        if (after.mode, after.customer) != (before.mode, before.customer):
            await change.connection.run_sync(payments.begin_reporting, book, change.now)
        await change.log("billing_terms.updated", book, before=_terms(before), after=_terms(after))
        if after.mode == billing.PREPAID:
            await posting.publish_budget(change, services, book)
        elif before.mode == billing.PREPAID:
            await posting.drop_budget(change, services, book)
    return _shape(after)


def _balance(connection: Connection, organization_id: str) -> Balance:
    profile = billing.profile(connection, organization_id)
    balances = ledger.balances(connection, organization_id)
    return Balance(
        organization_id=organization_id,
        mode=_mode(profile),
        balance=money(balances.owed(Account.CREDIT)),
        held=money(balances.owed(Account.HELD)),
        spendable=money(spendable_of(connection, organization_id)),
        receivable=money(balances.owned(Account.RECEIVABLE)),
        charged=money(balances.charged),
        accounts={account: money(balances.owned(account)) for account in Account},
    )


def _mode(profile: Profile) -> Literal["postpaid", "prepaid"]:
    return "prepaid" if profile.mode == billing.PREPAID else "postpaid"


def _terms(profile: Profile) -> dict[str, Any]:
    return {"mode": profile.mode, "tax_basis_points": profile.tax_basis_points, "customer": profile.customer}


def _shape(profile: Profile) -> ProfileShown:
    return ProfileShown(
        organization_id=profile.organization_id,
        mode=_mode(profile),
        tax_basis_points=profile.tax_basis_points,
        address=Address(**profile.address),
        customer=profile.customer,
    )
