"""One way for all money that people and payment providers move: post it, log it, and tell gateways the new budget."""

from collections.abc import Callable
from typing import Any

from tokenworks.control.changes import Change
from tokenworks.control.ledger.budget import budget, record
from tokenworks.control.ledger.corrections import Given
from tokenworks.control.services import Services
from tokenworks.control.storage import ledger, limits
from tokenworks.control.storage.ledger import KeyReused, Posted, Transaction
from tokenworks.core.errors import InvalidRequest


async def post(change: Change, services: Services, wanted: Transaction, **more: Any) -> Posted:
    """Once per idempotency key. `more` is for the audit log."""
    try:
        posted = await change.connection.run_sync(ledger.post, wanted)
    except KeyReused as error:
        raise _reused() from error
    if posted.new:
        amount = sum(transfer.amount for transfer in wanted.transfers[:1])
        after = {"organization_id": wanted.organization_id, "sequence": posted.sequence, "amount": amount, **more}
        await change.log(f"{wanted.kind}.posted", wanted.reference or wanted.key, after=after)
        await publish_budget(change, services, wanted.organization_id)
    return posted


async def give(
    change: Change, services: Services, organization_id: str, how: Callable[..., Given], *arguments: Any
) -> Given:
    """The same for what corrections.py gives back."""
    try:
        given = await change.connection.run_sync(how, *arguments)
    except KeyReused as error:
        raise _reused() from error
    if given.new:
        after = {"organization_id": organization_id, "sequence": given.sequence, "amount": given.amount}
        action = "refund.posted" if given.note is None else "credit_note.issued"
        await change.log(action, str(given.sequence) if given.note is None else given.note.number, after=after)
        await publish_budget(change, services, organization_id)
    return given


def _reused() -> InvalidRequest:
    return InvalidRequest(
        "Idempotency-Key: it was used for something else; take a new key for a new transaction.",
        param="Idempotency-Key",
        code="idempotency_key_reused",
    )


async def publish_budget(change: Change, services: Services, organization_id: str) -> None:
    """The budget as it is now; none when the organization pays later."""
    wanted = await change.connection.run_sync(budget, organization_id)
    if wanted is not None:
        await limits.put(change.connection, organization_id, wanted, operator=True, now=change.now)
        change.announce(lambda: services.announcer.put_limits([wanted]))


async def drop_budget(change: Change, services: Services, organization_id: str) -> None:
    """For an organization that pays later from now on."""
    found = await limits.named(change.connection, record(organization_id))
    if found is not None:
        await limits.remove(change.connection, found.id)
        change.announce(lambda: services.announcer.remove_limits([found.record.name]))
