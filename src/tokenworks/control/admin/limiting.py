"""How limits are set and removed, whichever path they come by."""

from typing import Any

from tokenworks.control.access import Actor, refusal
from tokenworks.control.changes import Change, changing
from tokenworks.control.services import Services
from tokenworks.control.storage import api_keys, limits, tenants
from tokenworks.control.storage.limits import Limit, Terms
from tokenworks.core.errors import InvalidRequest
from tokenworks.snapshot.records import LimitRecord

LARGEST = 2**53 - 1
EVERYBODY = ""
SPEND = "spend_nano_usd"


def shown(limit: Limit) -> dict[str, Any]:
    """For answers and for the audit log."""
    record = limit.record
    return {
        "id": limit.id,
        "scope": record.scope,
        "subject": record.id,
        "model": record.model,
        "kind": record.kind,
        "limit": record.limit,
        "window_seconds": record.window,
        "period": record.period or None,
        "strict": record.strict,
        "alert_only": limit.terms.alert_only,
        "thresholds": list(limit.terms.thresholds),
        "utc_offset_minutes": -record.offset // 60,
        "set_by_operator": limit.set_by_operator,
        "created_at": limit.created_at,
    }


async def check_free(services: Services, actor: Actor, limit: Limit | None) -> None:
    """What the operator has set for an organization, the organization cannot lift."""
    if limit is not None and limit.set_by_operator and not actor.is_operator:
        raise await refusal(services, actor, "This limit was set by the operator; only the operator may change it.")


async def owner(services: Services, actor: Actor, scope: str, subject: str) -> str:
    """The organization whose limit this is; refused when it is none of the actor's business."""
    if scope in ("model", "provider"):
        if not actor.is_operator:
            raise await refusal(
                services, actor, f"A limit of a {scope} counts everybody; only the operator may set it."
            )
        state = services.publisher.state
        known = state.models if scope == "model" else {each.provider for each in state.upstreams.values()}
        if subject not in known:
            raise InvalidRequest(f"subject: there is no {scope} {subject!r}.", param="subject")
        return EVERYBODY
    async with services.database.read() as connection:
        if scope == "organization":
            organization = await tenants.organization(connection, subject)
            found = organization.id if organization else None
        elif scope == "project":
            found = await tenants.owner_of_project(connection, subject)
        else:
            key = await api_keys.find(connection, subject)
            found = key.organization_id if key else None
    if found is None or not (actor.is_operator or found == actor.organization_id):
        raise InvalidRequest(f"subject: there is no {scope} {subject!r}.", param="subject")
    return found


async def put(
    change: Change, services: Services, actor: Actor, owner: str, record: LimitRecord, terms: Terms | None = None
) -> Limit:
    """`owner`: the organization whose limit it is. `terms` None: as they are."""
    before = await limits.named(change.connection, record)
    if before is not None and before.set_by_operator and not actor.is_operator:
        raise InvalidRequest("This limit was just set by the operator; only the operator may change it.")
    # An operator's hand in the own organization is an owner's; elsewhere, and on what was so before, it binds.
    binding = actor.is_operator and (owner != actor.organization_id or (before is not None and before.set_by_operator))
    made = await limits.put(change.connection, owner, record, operator=binding, now=change.now, terms=terms)
    project = record.id if record.scope == "project" else ""
    await change.log(
        f"{_noun(record)}.updated",
        made.id,
        project_id=project,
        before=None if before is None else shown(before),
        after=shown(made),
    )
    if made.terms.alert_only:
        change.announce(lambda: services.announcer.remove_limits([record.name]))
    else:
        change.announce(lambda: services.announcer.put_limits([record]))
    change.announce(services.budgets.wake)
    return made


async def remove(change: Change, services: Services, limit: Limit) -> None:
    await limits.remove(change.connection, limit.id)
    project = limit.record.id if limit.record.scope == "project" else ""
    await change.log(f"{_noun(limit.record)}.deleted", limit.id, project_id=project, before=shown(limit))
    change.announce(lambda: services.announcer.remove_limits([limit.record.name]))
    change.announce(services.budgets.wake)


def _noun(record: LimitRecord) -> str:
    """As the audit log calls it."""
    return "spend_limit" if record.kind == SPEND else "rate_limit"


async def put_named(
    services: Services, actor: Actor, owner: str, record: LimitRecord, terms: Terms | None = None
) -> Limit:
    """One limit as a change of its own."""
    async with services.database.read() as connection:
        await check_free(services, actor, await limits.named(connection, record))
    async with changing(services, actor) as change:
        return await put(change, services, actor, owner, record, terms)
