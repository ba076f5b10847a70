"""Admin keys. Each has a role; nobody makes one above his own."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import Actor, ReadAdminKeys, WriteAdminKeys, refusal
from tokenworks.control.admin.naming import Name
from tokenworks.control.admin.organization.shapes import After, Deleted, Limit, Listing, Wish, listing, missing
from tokenworks.control.admin.organization.users import OrganizationRole, role_named
from tokenworks.control.changes import changing
from tokenworks.control.keys import ADMIN_PREFIX, Secret
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import admin_keys, tables
from tokenworks.control.storage.admin_keys import AdminKey
from tokenworks.core.errors import InvalidRequest

router = APIRouter(prefix="/v1/organization/admin_api_keys", tags=["admin keys"])


class NewAdminKey(Wish):
    name: Name
    role: OrganizationRole | Literal["operator"] | None = Field(None, description="The caller's own when left out.")
    expires_in_seconds: int | None = Field(None, ge=1, le=10 * 366 * 86400)


class AdminApiKey(BaseModel):
    object: Literal["organization.admin_api_key"] = "organization.admin_api_key"
    id: str
    name: str
    redacted_value: str
    role: str
    created_at: int
    expires_at: int | None
    last_used_at: int | None
    owner: dict[str, Any]


class MadeAdminApiKey(AdminApiKey):
    value: str = Field(description="The whole key. It is shown this once.")


@router.post("")
async def create(body: NewAdminKey, services: ServicesDep, actor: WriteAdminKeys) -> MadeAdminApiKey:
    role = role_named(body.role or actor.role.value)
    if not actor.may_give(role):
        raise await refusal(services, actor, f"The role {actor.role.value!r} may not make a key of the role {role!r}.")
    secret = Secret.generate(ADMIN_PREFIX)
    async with changing(services, actor) as change:
        made = await admin_keys.create(
            change.connection,
            secret,
            actor.organization_id,
            body.name,
            role,
            now=change.now,
            expires_at=None if body.expires_in_seconds is None else change.now + body.expires_in_seconds,
        )
        await change.log("admin_api_key.created", made.id, after=_shown(made))
    return MadeAdminApiKey(**_shape(made).model_dump(), value=secret.text)


@router.get("")
async def list_all(
    services: ServicesDep,
    actor: ReadAdminKeys,
    limit: Limit = 20,
    after: After = None,
    order: Literal["asc", "desc"] = "asc",
) -> Listing[AdminApiKey]:
    async with services.database.read() as connection:
        page = await admin_keys.of_organization(
            connection, actor.organization_id, limit, after, descending=order == "desc"
        )
    found: Listing[AdminApiKey] = listing(page, _shape)
    return found


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, actor: ReadAdminKeys) -> AdminApiKey:
    async with services.database.read() as connection:
        return _shape(await _find(connection, id, actor))


@router.delete("/{id}")
async def delete(id: str, services: ServicesDep, actor: WriteAdminKeys) -> Deleted:
    async with services.database.read() as connection:
        found = await _find(connection, id, actor)
    if not actor.may_give(found.role):
        raise await refusal(services, actor, f"The role {actor.role.value!r} may not remove a key of {found.role!r}.")
    if id == actor.key_id:
        raise InvalidRequest("This is the key that you are using; remove it with another one.", code="own_key")
    async with changing(services, actor) as change:
        await admin_keys.revoke(change.connection, tables.admin_keys.c.id == id, change.now)
        await change.log("admin_api_key.deleted", id, before=_shown(found))
    return Deleted(object="organization.admin_api_key.deleted", id=id)


async def _find(connection: AsyncConnection, id: str, actor: Actor) -> AdminKey:
    found = await admin_keys.find(connection, id, actor.organization_id)
    if found is None or found.revoked_at is not None:
        raise missing("admin key", id)
    return found


def _shown(key: AdminKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in ("name", "role", "redacted", "expires_at", "user_id")}


def _shape(key: AdminKey) -> AdminApiKey:
    owner = {
        "type": "user" if key.user_id else "service_account",
        "object": "organization.user" if key.user_id else "organization.service_account",
        "id": key.user_id or key.organization_id,
        "name": key.email or "organization",
        "created_at": key.created_at,
        "role": key.role,
    }
    return AdminApiKey(
        id=key.id,
        name=key.name,
        redacted_value=key.redacted,
        role=key.role,
        created_at=key.created_at,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
        owner=owner,
    )
