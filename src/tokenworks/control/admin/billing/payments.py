"""Top-ups and refunds of money through the payment provider, and what it tells us."""

import hashlib
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import AfterValidator, BaseModel, Field

from tokenworks.control.access import Actor, PayBilling, ReadBilling, WriteBilling
from tokenworks.control.admin.billing.credit import Posted, shown
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
from tokenworks.control.admin.organization.shapes import Wish, missing
from tokenworks.control.changes import changing
from tokenworks.control.ledger import accounts, posting
from tokenworks.control.ledger.accounts import Kind
from tokenworks.control.ledger.budget import spendable_of
from tokenworks.control.ledger.payments import base, events
from tokenworks.control.ledger.payments.base import (
    NANO_PER_CENT,
    BadSignature,
    PaymentProvider,
    PaymentRefused,
    PaymentUnavailable,
)
from tokenworks.control.ledger.payments.meter import Meter
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import billing, ledger, payments
from tokenworks.control.storage.ledger import Transaction
from tokenworks.core.errors import InvalidRequest, NotFound, TokenworksError, Unavailable

router = APIRouter(prefix="/admin/v1/billing", tags=["billing"])
webhook = APIRouter(tags=["billing"])

WEBHOOK_PATH = "/webhooks/payments"


def _web(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise ValueError("must be an http or https URL")
    return url


WebUrl = Annotated[str, Field(max_length=2000), AfterValidator(_web)]


class CheckoutWish(Wish):
    amount_usd: Usd = Field(description="Whole cents, at least 1 USD.")
    success_url: WebUrl = Field(description="Where the customer goes after paying.")
    cancel_url: WebUrl


class Payment(BaseModel):
    object: Literal["billing.payment"] = "billing.payment"
    id: str
    organization_id: str
    amount: Money
    refunded: Money
    status: str = Field(description="open | paid | expired | failed")
    url: str = Field(description="Where it is paid.")
    created_at: int
    paid_at: int | None


class PaymentList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Payment]


class RefundWish(Wish):
    amount_usd: Usd | None = Field(None, description="Whole cents; all that is left of it when left out.")


class Reported(BaseModel):
    object: Literal["billing.reported"] = "billing.reported"
    reports: int


class Taken(BaseModel):
    """`taken`: whether the event was new."""

    received: Literal[True] = True
    taken: bool


@router.post("/checkouts")
async def checkout(
    body: CheckoutWish,
    services: ServicesDep,
    actor: PayBilling,
    organization_id: OrganizationId = None,
    key: IdempotencyKey = None,
) -> Payment:
    """A page where this top-up can be paid. The balance grows when the payment provider says that it was."""
    provider, cents = _provider(services), _cents(body.amount_usd)
    if cents < 100:
        raise InvalidRequest("amount_usd: at least 1 USD can be paid.", param="amount_usd")
    async with services.database.read() as connection:
        book = await book_of(connection, actor, organization_id)
        profile = await connection.run_sync(billing.profile, book)
        payment_id = f"pay_{hashlib.sha256(f'{book} {key_of(key)}'.encode()).hexdigest()[:24]}"
        known = await connection.run_sync(payments.find, payment_id)
    if known is not None and known.amount != cents * NANO_PER_CENT:
        raise InvalidRequest("Idempotency-Key: it was used for another amount.", param="Idempotency-Key")
    if known is None or not known.url:
        wish = base.Wish(payment_id, book, cents, body.success_url, body.cancel_url, profile.customer)
        try:
            made = await provider.checkout(wish)
        except (PaymentRefused, PaymentUnavailable) as error:
            raise _failure(error) from error
        known = await _note(services, actor, payments.Payment(
            payment_id, book, cents * NANO_PER_CENT, "open", made.id, None, made.url, 0, services.now()
        ))  # fmt: skip
    return _shape(known)


@router.get("/payments")
async def list_payments(
    services: ServicesDep, actor: ReadBilling, organization_id: OrganizationId = None
) -> PaymentList:
    """The newest hundred."""
    async with services.database.read() as connection:
        book = await book_of(connection, actor, organization_id)
        found = await connection.run_sync(payments.some, book, 100)
    return PaymentList(data=[_shape(each) for each in found])


@router.post("/payments/{id}/refund")
async def refund(
    id: str, body: RefundWish, services: ServicesDep, actor: WriteBilling, key: IdempotencyKey = None
) -> Posted:
    """Pay back what was paid and is not spent. The amount is held until the provider says what became of it."""
    provider = _provider(services)
    async with changing(services, actor) as change:
        payment = await change.connection.run_sync(payments.find, id)
        if payment is None or payment.intent is None:
            raise missing("payment", id)
        book, own_key = payment.organization_id, key_of(key)
        known = await change.connection.run_sync(ledger.keyed, book, own_key)
        left = payment.amount - payment.refunded
        amount = left if body.amount_usd is None else _cents(body.amount_usd) * NANO_PER_CENT
        if known is not None:
            [entry] = await change.connection.run_sync(ledger.entries, book, known.sequence)
            amount = entry.amount if body.amount_usd is None else amount
        else:
            if not 0 < amount <= min(left, await change.connection.run_sync(spendable_of, book)):
                raise InvalidRequest(
                    "amount_usd: at most what is left of the payment and not spent can be paid back.",
                    param="amount_usd",
                )
        hold = Transaction(
            book, Kind.HOLD, accounts.hold(amount), services.clock.now_ns(), own_key, "refund", id, actor.key_id
        )
        posted = await posting.post(change, services, hold)
        if posted.new:
            refunded = payment.refunded + amount
            await change.connection.run_sync(lambda sync: payments.change(sync, id, refunded=refunded))
    return await _pay_back(services, actor, provider, payment, payment.intent, hold, posted)


@router.post("/usage-reports")
async def report(services: ServicesDep, actor: WriteBilling) -> Reported:
    """Tell the payment provider now what was used, as happens every minute anyway."""
    provider = _provider(services)
    if not provider.meters:
        raise InvalidRequest("No meter is configured: start control with --stripe-meter.", code="no_meter")
    try:
        reports = await Meter(services.database, provider, services.clock).report()
    except (PaymentRefused, PaymentUnavailable) as error:
        raise _failure(error) from error
    async with changing(services, actor) as change:
        await change.log("usage.reported", "meter_events", after={"reports": reports})
    return Reported(reports=reports)


@webhook.post(WEBHOOK_PATH)
async def take_event(request: Request, services: ServicesDep) -> Taken:
    """From the payment provider; its signature is the key."""
    provider = _provider(services)
    try:
        event = provider.event(request.headers, await request.body(), services.now())
    except BadSignature as error:
        raise InvalidRequest(str(error), code="signature") from error
    return Taken(taken=await events.take(services, event))


async def _pay_back(
    services: Services,
    actor: Actor,
    provider: PaymentProvider,
    payment: payments.Payment,
    intent: str,
    hold: Transaction,
    posted: ledger.Posted,
) -> Posted:
    async with services.database.read() as connection:
        ended = await connection.run_sync(ledger.keyed, payment.organization_id, f"hold:{posted.sequence}")
    if ended is not None:
        async with changing(services, actor) as change:
            return await shown(change, hold, posted)
    cents, reference = hold.transfers[0].amount // NANO_PER_CENT, str(posted.sequence)
    try:
        state = await provider.refund(intent, cents, payment.organization_id, reference)
    except PaymentRefused as error:
        async with changing(services, actor) as change:
            await events.settle_refund(change, services, payment.organization_id, reference, "refund_failed")
        raise _failure(error) from error
    except PaymentUnavailable as error:  # the money stays held; the same key asks again
        raise _failure(error) from error
    async with changing(services, actor) as change:
        await events.settle_refund(change, services, payment.organization_id, reference, state)
        return await shown(change, hold, posted)


async def _note(services: Services, actor: Actor, made: payments.Payment) -> payments.Payment:
    async with changing(services, actor) as change:
        known = await change.connection.run_sync(payments.find, made.id)
        if known is None:
            await change.connection.run_sync(payments.add, made)
            await change.log("checkout.created", made.id, after={"amount": made.amount})
            return made
        # Its event overtook us.
        await change.connection.run_sync(lambda sync: payments.change(sync, made.id, url=made.url))
    return replace(known, url=made.url)


def _provider(services: Services) -> PaymentProvider:
    if services.payments is None:
        raise NotFound("No payment provider is configured: set STRIPE_API_KEY for control.", code="no_payments")
    return services.payments


def _cents(text: str) -> int:
    amount = nano(text)
    if amount % NANO_PER_CENT:
        raise InvalidRequest("amount_usd: must be whole cents.", param="amount_usd")
    return amount // NANO_PER_CENT


def _failure(error: Exception) -> TokenworksError:
    if isinstance(error, PaymentRefused):
        return InvalidRequest(f"The payment provider refuses: {error}.", code="payment_refused")
    return Unavailable(
        f"The payment provider cannot be asked now: {error}. Send this again with its Idempotency-Key.",
        code="payment_unavailable",
        retry_after=5.0,
    )


def _shape(each: payments.Payment) -> Payment:
    return Payment(
        id=each.id,
        organization_id=each.organization_id,
        amount=money(each.amount),
        refunded=money(each.refunded),
        status=each.status,
        url=each.url,
        created_at=each.created_at,
        paid_at=each.paid_at,
    )
