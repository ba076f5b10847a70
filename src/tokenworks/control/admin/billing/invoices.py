"""Invoices and credit notes: drafts to look at, documents to send, corrections, and what was paid of them."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import Actor, ReadBilling, WriteBilling
from tokenworks.control.admin.billing.credit import Memo
from tokenworks.control.admin.billing.shapes import (
    IdempotencyKey,
    Money,
    OrganizationId,
    Usd,
    book_of,
    key_of,
    money,
    nano,
)
from tokenworks.control.admin.organization.shapes import Wish as Body
from tokenworks.control.admin.organization.shapes import missing
from tokenworks.control.changes import changing
from tokenworks.control.ledger import accounts, corrections, documents, invoicing, months, posting
from tokenworks.control.ledger.accounts import Kind
from tokenworks.control.ledger.corrections import Wish
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import invoices
from tokenworks.control.storage.invoices import INVOICE, Issued, Summary
from tokenworks.control.storage.ledger import Transaction
from tokenworks.core.errors import InvalidRequest
from tokenworks.core.money import nano_to_usd

router = APIRouter(prefix="/admin/v1/billing/invoices", tags=["billing"])


def _month(text: str) -> str:
    months.span(text)
    return text


Month = Annotated[str, Field(description="As in 2026-11, in UTC."), AfterValidator(_month)]
Number = Annotated[str, Path(max_length=40)]
Form = Annotated[Literal["json", "csv", "pdf"], Query(alias="format")]


class IssueWish(Body):
    month: Month
    every_organization: bool = Field(False, description="Of every organization that used something.")


class CreditWish(Body):
    amount_usd: Usd = Field(description="Without tax.")
    reason: Memo


class PaymentWish(Body):
    amount_usd: Usd
    reference: Memo = Field(description="Of the payment, as on the bank's statement.")


class Invoice(BaseModel):
    object: Literal["billing.invoice"] = "billing.invoice"
    number: str
    kind: Literal["invoice", "credit_note"]
    organization_id: str
    month: str
    corrects: str | None
    issued_at: int
    total: Money
    due: Money = Field(description="What it asked for.")
    open: Money = Field(description="What is still to be paid of it.")
    new: bool | None = Field(None, description="Whether this call issued it.")


class InvoiceList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Invoice]


@router.get("")
async def list_invoices(
    services: ServicesDep, actor: ReadBilling, organization_id: OrganizationId = None
) -> InvoiceList:
    """In the order of their issue."""
    async with services.database.read() as connection:
        book = await book_of(connection, actor, organization_id)
        found = await connection.run_sync(invoices.every, book)
        return InvoiceList(data=[await _shape(connection, each) for each in found])


@router.post("")
async def issue(
    body: IssueWish, services: ServicesDep, actor: WriteBilling, organization_id: OrganizationId = None
) -> InvoiceList:
    """The invoices of this month, and of earlier ones that have none. Again, it answers what there is."""
    books = await _books(services, actor, organization_id, every=body.every_organization)
    made: list[Invoice] = []
    for book in books:
        async with changing(services, actor) as change:
            found = await change.connection.run_sync(invoicing.issue, book, body.month, change.now, actor.key_id)
            for each, new in found:
                if new:
                    after = {"organization_id": book, "total": each.total, "due": each.due}
                    await change.log("invoice.issued", each.number, after=after)
                made.append(await _shape(change.connection, each, new))
            await posting.publish_budget(change, services, book)
    return InvoiceList(data=made)


@router.get("/draft")
async def draft(
    services: ServicesDep,
    actor: ReadBilling,
    organization_id: OrganizationId = None,
    month: Month | None = None,
    form: Form = "json",
) -> Response:
    """The month as it stands, the current one when none is named. Nothing is posted."""
    async with services.database.read() as connection:
        book = await book_of(connection, actor, organization_id)
        now = services.now()
        wanted = month or months.of(now)
        found = await connection.run_sync(lambda sync: invoicing.draft(sync, book, wanted, now))
    return await _file(services, found, form)


@router.get("/{number}")
async def retrieve(number: Number, services: ServicesDep, actor: ReadBilling, form: Form = "json") -> Response:
    """The document as it was issued, as JSON, CSV or PDF."""
    async with services.database.read() as connection:
        found = await _find(connection, actor, number)
    return await _file(services, found.document, form)


@router.post("/{number}/credit-notes")
async def credit(
    number: Number, body: CreditWish, services: ServicesDep, actor: WriteBilling, key: IdempotencyKey = None
) -> Invoice:
    """Correct an issued invoice. The amount goes onto the balance; what is open of the invoice is less by it."""
    wish = Wish(nano(body.amount_usd), body.reason, key_of(key), actor.key_id, services.clock.now_ns())
    async with changing(services, actor) as change:
        corrected = await _invoice(change.connection, actor, number)
        given = await posting.give(change, services, corrected.organization_id, corrections.credit, corrected, wish)
        if given.note is None:
            raise missing("credit note", number)
        return await _shape(change.connection, given.note, given.new)


@router.post("/{number}/payments")
async def pay(
    number: Number, body: PaymentWish, services: ServicesDep, actor: WriteBilling, key: IdempotencyKey = None
) -> Invoice:
    """Money that came in for an invoice."""
    amount = nano(body.amount_usd)
    async with changing(services, actor) as change:
        paid = await _invoice(change.connection, actor, number)
        wanted = Transaction(
            paid.organization_id,
            Kind.PAYMENT,
            accounts.payment(amount),
            services.clock.now_ns(),
            key_of(key),
            body.reference,
            number,
            actor.key_id,
        )
        posted = await posting.post(change, services, wanted)
        left = await change.connection.run_sync(invoices.open_amount, paid.organization_id, number)
        if left < 0 and posted.new:
            raise InvalidRequest(
                f"amount_usd: only {nano_to_usd(left + amount)} USD are open; the rest would be a top-up.",
                param="amount_usd",
            )
        return await _shape(change.connection, paid)


async def _books(services: Services, actor: Actor, organization_id: str | None, *, every: bool) -> list[str]:
    async with services.database.read() as connection:
        if not every:
            return [await book_of(connection, actor, organization_id)]
        return list(await connection.run_sync(invoices.charged_organizations))


async def _find(connection: AsyncConnection, actor: Actor, number: str) -> Issued:
    found = await connection.run_sync(invoices.find, number)
    if found is None or not (actor.is_operator or found.organization_id == actor.organization_id):
        raise missing("invoice", number)
    return found


async def _invoice(connection: AsyncConnection, actor: Actor, number: str) -> Issued:
    found = await _find(connection, actor, number)
    if found.kind != INVOICE:
        raise InvalidRequest(f"{number} is a credit note.", param="number")
    return found


async def _file(services: Services, document: dict[str, Any], form: str) -> Response:
    if form == "json":
        shown = {name: value for name, value in document.items() if name != "groups"}
        return Response(documents.as_json(shown), media_type="application/json")
    file = await asyncio.to_thread(documents.render, document, form, services.invoice_font)
    disposition = {"content-disposition": f'attachment; filename="{file.name}"'}
    return Response(file.content, media_type=file.media_type, headers=disposition)


async def _shape(connection: AsyncConnection, each: Summary, new: bool | None = None) -> Invoice:
    left = 0
    if each.kind == INVOICE:
        left = await connection.run_sync(invoices.open_amount, each.organization_id, each.number)
    return Invoice(
        number=each.number,
        kind="invoice" if each.kind == INVOICE else "credit_note",
        organization_id=each.organization_id,
        month=each.month,
        corrects=each.corrects,
        issued_at=each.issued_at,
        total=money(each.total),
        due=money(each.due),
        open=money(left),
        new=new,
    )
