"""The API keys of a project. They are made with service accounts, or by `/admin/v1/keys`."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import ReadTenants, WriteKeys
from tokenworks.control.admin.keys import Scopes, revoked, shown
from tokenworks.control.admin.organization.shapes import (
    After,
    Deleted,
    Limit,
    Listing,
    Wish,
    listed,
    missing,
    open_project,
    project_of,
)
from tokenworks.control.changes import changing
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import api_keys, service_accounts
from tokenworks.control.storage.api_keys import ApiKey, Policy

router = APIRouter(prefix="/v1/organization/projects/{project_id}/api_keys", tags=["keys"])


class KeyChange(Wish):
    scopes: Scopes | None = None
    expires_in_seconds: int | None = Field(None, ge=1, le=10 * 366 * 86400)


class Owner(BaseModel):
    type: Literal["service_account"] = "service_account"
    service_account: dict[str, Any]


class ProjectKey(BaseModel):
    object: Literal["organization.project.api_key"] = "organization.project.api_key"
    id: str
    name: str
    redacted_value: str
    created_at: int
    last_used_at: int | None
    expires_at: int | None
    owner: Owner = Field(description="A key that no service account has is the project's own, and shown as such.")
    owner_project_access: Literal["active"] = "active"


@router.get("")
async def list_all(
    project_id: str, services: ServicesDep, actor: ReadTenants, limit: Limit = 20, after: After = None
) -> Listing[ProjectKey]:
    async with services.database.read() as connection:
        await project_of(connection, project_id, actor)
        page = await api_keys.of_project(connection, project_id, limit, after)
        found: Listing[ProjectKey] = listed([await _shape(connection, key) for key in page.data], page.has_more)
    return found


@router.get("/{id}")
async def retrieve(project_id: str, id: str, services: ServicesDep, actor: ReadTenants) -> ProjectKey:
    async with services.database.read() as connection:
        await project_of(connection, project_id, actor)
        return await _shape(connection, await _find(connection, id, project_id))


@router.post("/{id}")
async def update(project_id: str, id: str, body: KeyChange, services: ServicesDep, actor: WriteKeys) -> ProjectKey:
    async with changing(services, actor) as change:
        await open_project(change.connection, project_id, actor)
        before = await _find(change.connection, id, project_id)
        old = before.policy
        ends = old.expires_at if body.expires_in_seconds is None else change.now + body.expires_in_seconds
        scopes = old.scopes if body.scopes is None else tuple(dict.fromkeys(body.scopes))
        policy = Policy(old.models, scopes, old.regions, old.networks, ends)
        await api_keys.change(change.connection, id, before.name, policy)
        key = await _find(change.connection, id, project_id)
        await change.log("api_key.updated", id, project_id=project_id, before=shown(before), after=shown(key))
        change.announce(lambda: services.announcer.add_key(key))
        return await _shape(change.connection, key)


@router.delete("/{id}")
async def delete(project_id: str, id: str, services: ServicesDep, actor: WriteKeys) -> Deleted:
    async with changing(services, actor) as change:
        await project_of(change.connection, project_id, actor)
        await _find(change.connection, id, project_id)
        await revoked(services, change, actor, id)
    return Deleted(object="organization.project.api_key.deleted", id=id)


async def _find(connection: AsyncConnection, id: str, project_id: str) -> ApiKey:
    key = await api_keys.find(connection, id)
    if key is None or key.project_id != project_id or key.revoked_at is not None:
        raise missing("API key", id)
    return key


async def _shape(connection: AsyncConnection, key: ApiKey) -> ProjectKey:
    account = None
    if key.service_account_id is not None:
        account = await service_accounts.find(connection, key.service_account_id, key.project_id)
    owner = {
        "id": account.id if account else key.project_id,
        "name": account.name if account else "project",
        "role": account.role if account else "member",
        "created_at": account.created_at if account else key.created_at,
    }
    return ProjectKey(
        id=key.id,
        name=key.name,
        redacted_value=key.redacted,
        created_at=key.created_at,
        last_used_at=key.last_used_at,
        expires_at=key.expires_at,
        owner=Owner(service_account=owner),
    )
