"""Service accounts of a project, and the keys that are made with them and shown once."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenworks.control.access import Actor, ReadTenants, WriteKeys
from tokenworks.control.admin.keys import Scopes, shown
from tokenworks.control.admin.naming import Name
from tokenworks.control.admin.organization.shapes import (
    After,
    Deleted,
    Limit,
    Listing,
    Wish,
    listing,
    missing,
    open_project,
    project_of,
)
from tokenworks.control.changes import Change, changing
from tokenworks.control.keys import API_PREFIX, Secret
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import api_keys, service_accounts, tables
from tokenworks.control.storage.api_keys import Policy

router = APIRouter(prefix="/v1/organization/projects/{project_id}/service_accounts", tags=["service accounts"])

Lifetime = Field(None, ge=1, le=10 * 366 * 86400, description="Of its key; it never ends when left out.")


class NewServiceAccount(Wish):
    name: Name
    create_service_account_only: bool | None = Field(None, description="True: make no key.")
    expires_in_seconds: int | None = Lifetime


class ServiceAccountChange(Wish):
    name: Name | None = None
    role: Literal["member", "owner"] | None = None


class NewKey(Wish):
    name: Name = "Secret Key"
    scopes: Scopes | None = None
    expires_in_seconds: int | None = Lifetime


class ServiceAccount(BaseModel):
    object: Literal["organization.project.service_account"] = "organization.project.service_account"
    id: str
    name: str
    role: str
    created_at: int


class MadeKey(BaseModel):
    object: Literal["organization.project.service_account.api_key"] = "organization.project.service_account.api_key"
    id: str
    name: str
    created_at: int
    expires_at: int | None
    value: str = Field(description="The whole key. It is shown this once.")


class MadeServiceAccount(ServiceAccount):
    api_key: MadeKey | None


@router.post("")
async def create(
    project_id: str, body: NewServiceAccount, services: ServicesDep, actor: WriteKeys
) -> MadeServiceAccount:
    async with changing(services, actor) as change:
        await open_project(change.connection, project_id, actor)
        made = await service_accounts.create(change.connection, project_id, body.name, "member", change.now)
        after = {"name": made.name, "role": made.role}
        await change.log("service_account.created", made.id, project_id=project_id, after=after)
        key = None
        if not body.create_service_account_only:
            wish = NewKey(expires_in_seconds=body.expires_in_seconds)
            key = await _make_key(services, change, made, wish)
    return MadeServiceAccount(**_account(made).model_dump(), api_key=key)


@router.get("")
async def list_all(
    project_id: str, services: ServicesDep, actor: ReadTenants, limit: Limit = 20, after: After = None
) -> Listing[ServiceAccount]:
    async with services.database.read() as connection:
        await project_of(connection, project_id, actor)
        page = await service_accounts.of_project(connection, project_id, limit, after)
    found: Listing[ServiceAccount] = listing(page, _account)
    return found


@router.get("/{id}")
async def retrieve(project_id: str, id: str, services: ServicesDep, actor: ReadTenants) -> ServiceAccount:
    async with services.database.read() as connection:
        await project_of(connection, project_id, actor)
        found = await service_accounts.find(connection, id, project_id)
    if found is None:
        raise missing("service account", id)
    return _account(found)


@router.post("/{id}")
async def update(
    project_id: str, id: str, body: ServiceAccountChange, services: ServicesDep, actor: WriteKeys
) -> ServiceAccount:
    async with changing(services, actor) as change:
        before = await _open(change, project_id, id, actor)
        name, role = body.name or before.name, body.role or before.role
        await service_accounts.change(change.connection, id, name, role)
        await change.log(
            "service_account.updated",
            id,
            project_id=project_id,
            before={"name": before.name, "role": before.role},
            after={"name": name, "role": role},
        )
    return ServiceAccount(id=id, name=name, role=role, created_at=before.created_at)


@router.delete("/{id}")
async def delete(project_id: str, id: str, services: ServicesDep, actor: WriteKeys) -> Deleted:
    """Its keys end with it."""
    async with changing(services, actor) as change:
        before = await _open(change, project_id, id, actor)
        await service_accounts.remove(change.connection, id, change.now)
        its = tables.api_keys.c.service_account_id == id
        digests = await api_keys.revoke_all(change.connection, its, change.now)
        change.announce(lambda: services.announcer.remove_keys(digests))
        await change.log(
            "service_account.deleted",
            id,
            project_id=project_id,
            before={"name": before.name, "role": before.role},
            after={"keys_revoked": len(digests)},
        )
    return Deleted(object="organization.project.service_account.deleted", id=id)


@router.post("/{id}/api_keys")
async def create_key(project_id: str, id: str, body: NewKey, services: ServicesDep, actor: WriteKeys) -> MadeKey:
    async with changing(services, actor) as change:
        account = await _open(change, project_id, id, actor)
        return await _make_key(services, change, account, body)


async def _open(change: Change, project_id: str, id: str, actor: Actor) -> service_accounts.ServiceAccount:
    await open_project(change.connection, project_id, actor)
    found = await service_accounts.find(change.connection, id, project_id)
    if found is None:
        raise missing("service account", id)
    return found


async def _make_key(
    services: Services, change: Change, account: service_accounts.ServiceAccount, wish: NewKey
) -> MadeKey:
    secret = Secret.generate(API_PREFIX)
    ends = None if wish.expires_in_seconds is None else change.now + wish.expires_in_seconds
    key = await api_keys.create(
        change.connection,
        secret,
        account.project_id,
        wish.name,
        policy=Policy(scopes=None if wish.scopes is None else tuple(dict.fromkeys(wish.scopes)), expires_at=ends),
        now=change.now,
        service_account_id=account.id,
    )
    await change.log("api_key.created", key.id, project_id=account.project_id, after=shown(key))
    change.announce(lambda: services.announcer.add_key(key))
    return MadeKey(id=key.id, name=key.name, created_at=key.created_at, expires_at=key.expires_at, value=secret.text)


def _account(row: service_accounts.ServiceAccount) -> ServiceAccount:
    return ServiceAccount(id=row.id, name=row.name, role=row.role, created_at=row.created_at)
