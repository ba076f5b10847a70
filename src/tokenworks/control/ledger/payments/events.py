"""What a payment provider's event does to the ledger. Each event acts once, and so does each thing that it tells of."""

from dataclasses import replace

from sqlalchemy.engine import Connection

from tokenworks.control.access import Actor, Role
from tokenworks.control.changes import Change, changing
from tokenworks.control.ledger import accounts, posting
from tokenworks.control.ledger.accounts import Kind
from tokenworks.control.ledger.payments.base import NANO_PER_CENT, Event, EventKind
from tokenworks.control.services import Services
from tokenworks.control.storage import billing, ledger, payments, tenants
from tokenworks.control.storage.ledger import Transaction

ACTOR = "payment provider"


async def take(services: Services, event: Event) -> bool:
    """False for an event that was taken before, or is none of ours."""
    if not event.kind:
        return False
    async with changing(services, _actor(event)) as change:
        if await change.connection.run_sync(payments.is_known, event.id):
            return False
        if await tenants.organization(change.connection, event.organization_id) is None:
            return False
        if event.kind.startswith("refund_"):
            await settle_refund(change, services, event.organization_id, event.reference, event.kind)
        else:
            await _settle_checkout(change, services, event)
        await change.connection.run_sync(payments.remember, event.id, event.name, change.now)
    return True


async def _settle_checkout(change: Change, services: Services, event: Event) -> None:
    connection, now = change.connection, change.now
    known = await connection.run_sync(payments.find, event.reference)
    amount = event.cents * NANO_PER_CENT
    if known is None:  # it came before the answer to our own request
        made = payments.Payment(
            event.reference, event.organization_id, amount, "open", event.object_id, None, "", 0, now
        )
        await connection.run_sync(payments.add, made)
    if event.kind in ("expired", "failed"):
        if known is None or known.status == "open":
            await connection.run_sync(lambda sync: payments.change(sync, event.reference, status=event.kind))
        return
    if event.kind != "paid":
        return
    topup = Transaction(
        event.organization_id,
        Kind.TOPUP,
        accounts.topup(amount),
        services.clock.now_ns(),
        f"payment:{event.reference}",
        reference=event.reference,
        actor=ACTOR,
    )
    await posting.post(change, services, topup)
    await connection.run_sync(
        lambda sync: payments.change(sync, event.reference, status="paid", intent=event.intent, paid_at=now)
    )
    if event.customer:
        await connection.run_sync(_remember_customer, event.organization_id, event.customer, now)


async def settle_refund(
    change: Change, services: Services, organization_id: str, reference: str, kind: EventKind
) -> None:
    """`reference`: the number of the hold that keeps the money of this refund."""
    held = await change.connection.run_sync(ledger.find, organization_id, int(reference) if reference.isdigit() else 0)
    if held is None or held.kind != Kind.HOLD or kind == "refund_pending":
        return
    [entry] = await change.connection.run_sync(ledger.entries, organization_id, held.sequence)
    key = f"hold:{held.sequence}"
    ended = await change.connection.run_sync(ledger.keyed, organization_id, key)
    paid = kind == "refund_succeeded"

    def move(kind: Kind, moved: list[accounts.Transfer], key: str) -> Transaction:
        return Transaction(
            organization_id, kind, moved, services.clock.now_ns(), key, reference=str(held.sequence), actor=ACTOR
        )

    if ended is None:
        moved = accounts.payout(entry.amount) if paid else accounts.release(entry.amount)
        await posting.post(change, services, move(Kind.PAYOUT if paid else Kind.RELEASE, moved, key))
    elif ended.kind == Kind.PAYOUT and not paid:  # the bank sent it back
        await posting.post(
            change, services, move(Kind.TOPUP, accounts.topup(entry.amount), f"returned:{held.sequence}")
        )
    else:
        return
    if not paid:
        payment = await change.connection.run_sync(payments.find, held.reference)
        if payment is not None:
            left = payment.refunded - entry.amount
            await change.connection.run_sync(lambda sync: payments.change(sync, payment.id, refunded=left))


def _remember_customer(connection: Connection, organization_id: str, customer: str, now: int) -> None:
    profile = billing.profile(connection, organization_id)
    if profile.customer is None:
        payments.begin_reporting(connection, organization_id, now)
        billing.put(connection, replace(profile, customer=customer))


def _actor(event: Event) -> Actor:
    """For the audit log."""
    return Actor("", ACTOR, event.organization_id, Role.BILLING, None, None, "", event.id, event.name)
