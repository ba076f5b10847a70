"""Who may do what: roles, what each is allowed, and the dependency that every admin route declares.

A route without one of the aliases at the end fails a test, and so does a role that can do more or less than this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, Request

from tokenworks.control.keys import new_id
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import audit
from tokenworks.control.storage.audit import Entry
from tokenworks.core.errors import PermissionDenied


class Role(StrEnum):
    """The operator owns the installation; the others are roles in an organization."""

    OPERATOR = "operator"
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"
    BILLING = "billing"


EVERYBODY = frozenset(Role)
MANAGERS = frozenset({Role.OPERATOR, Role.OWNER, Role.ADMIN})

ALLOWED: Mapping[str, frozenset[Role]] = {
    "tenants.read": EVERYBODY,
    "projects.write": MANAGERS,
    "keys.write": MANAGERS | {Role.MEMBER},
    "members.write": MANAGERS,
    "limits.write": MANAGERS,
    "webhooks.write": MANAGERS,
    "spend.write": frozenset({Role.OPERATOR, Role.OWNER, Role.BILLING}),
    "usage.read": EVERYBODY,
    "costs.read": EVERYBODY - {Role.MEMBER},
    "billing.read": EVERYBODY - {Role.MEMBER},
    "billing.pay": frozenset({Role.OPERATOR, Role.OWNER, Role.BILLING}),
    "billing.write": frozenset({Role.OPERATOR}),
    "prices.read": frozenset({Role.OPERATOR}),
    "prices.write": frozenset({Role.OPERATOR}),
    "aliases.read": frozenset({Role.OPERATOR}),
    "aliases.write": frozenset({Role.OPERATOR}),
    "admin_keys.read": MANAGERS,
    "admin_keys.write": MANAGERS,
    "audit.read": MANAGERS,
    "organizations.write": frozenset({Role.OPERATOR}),
}

_GRANTS: Mapping[Role, frozenset[Role]] = {
    Role.OPERATOR: EVERYBODY,
    Role.OWNER: EVERYBODY - {Role.OPERATOR},
    Role.ADMIN: EVERYBODY - {Role.OPERATOR, Role.OWNER},
}


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever's admin key the request carries; guard.py has found it."""

    key_id: str
    key_name: str
    organization_id: str
    role: Role
    user_id: str | None
    email: str | None
    address: str
    request_id: str
    call: str
    """Method and path."""

    @property
    def is_operator(self) -> bool:
        return self.role is Role.OPERATOR

    def may_give(self, *roles: str) -> bool:
        """Nobody makes, changes or removes somebody above himself."""
        return all(Role(role) in _GRANTS.get(self.role, frozenset()) for role in roles)


def entry(
    actor: Actor,
    now_ns: int,
    action: str,
    resource_id: str,
    *,
    project_id: str = "",
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    outcome: str = "done",
) -> Entry:
    return Entry(
        id=new_id("audit_log"),
        organization_id=actor.organization_id,
        at_ns=now_ns,
        actor={"key_id": actor.key_id, "key_name": actor.key_name, "role": actor.role.value, "user_id": actor.user_id},
        actor_id=actor.user_id or actor.key_id,
        actor_email=actor.email or "",
        address=actor.address,
        request_id=actor.request_id,
        action=action,
        outcome=outcome,
        resource_id=resource_id,
        project_id=project_id,
        before=before,
        after=after,
    )


async def refusal(services: Services, actor: Actor, why: str) -> PermissionDenied:
    """To be raised; it is in the audit log already."""
    refused = entry(
        actor, services.clock.now_ns(), "access.refused", actor.call, after={"reason": why}, outcome="refused"
    )
    async with services.database.write() as connection:
        await audit.append(connection, refused)
    return PermissionDenied(why)


class Needs:
    """The dependency of a route: the actor, once its role is allowed to do this."""

    def __init__(self, permission: str) -> None:
        self.permission = permission
        self.roles = ALLOWED[permission]

    async def __call__(self, request: Request, services: ServicesDep) -> Actor:
        actor: Actor = request.state.actor
        if actor.role in self.roles:
            return actor
        needed = ", ".join(sorted(role for role in self.roles if role is not Role.OPERATOR)) or Role.OPERATOR
        why = f"The role {actor.role.value!r} may not do this ({self.permission}); it takes one of: {needed}."
        raise await refusal(services, actor, why)


ReadTenants = Annotated[Actor, Depends(Needs("tenants.read"))]
WriteProjects = Annotated[Actor, Depends(Needs("projects.write"))]
WriteKeys = Annotated[Actor, Depends(Needs("keys.write"))]
WriteMembers = Annotated[Actor, Depends(Needs("members.write"))]
WriteLimits = Annotated[Actor, Depends(Needs("limits.write"))]
WriteWebhooks = Annotated[Actor, Depends(Needs("webhooks.write"))]
WriteSpend = Annotated[Actor, Depends(Needs("spend.write"))]
ReadUsage = Annotated[Actor, Depends(Needs("usage.read"))]
ReadCosts = Annotated[Actor, Depends(Needs("costs.read"))]
ReadBilling = Annotated[Actor, Depends(Needs("billing.read"))]
PayBilling = Annotated[Actor, Depends(Needs("billing.pay"))]
WriteBilling = Annotated[Actor, Depends(Needs("billing.write"))]
ReadPrices = Annotated[Actor, Depends(Needs("prices.read"))]
WritePrices = Annotated[Actor, Depends(Needs("prices.write"))]
ReadAliases = Annotated[Actor, Depends(Needs("aliases.read"))]
WriteAliases = Annotated[Actor, Depends(Needs("aliases.write"))]
ReadAdminKeys = Annotated[Actor, Depends(Needs("admin_keys.read"))]
WriteAdminKeys = Annotated[Actor, Depends(Needs("admin_keys.write"))]
ReadAudit = Annotated[Actor, Depends(Needs("audit.read"))]
WriteOrganizations = Annotated[Actor, Depends(Needs("organizations.write"))]
