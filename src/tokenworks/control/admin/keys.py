"""`/admin/v1/keys`: API keys and what each may do. A change is published before its answer is sent."""

import ipaddress
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from tokenworks.control.access import Actor, ReadTenants, WriteKeys
from tokenworks.control.admin.naming import Name
from tokenworks.control.changes import Change, changing
from tokenworks.control.keys import API_PREFIX, Secret
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import api_keys, tenants
from tokenworks.control.storage.api_keys import ApiKey, Policy
from tokenworks.core.errors import InvalidRequest, NotFound

router = APIRouter(prefix="/admin/v1/keys", tags=["keys"])

LONGEST_OVERLAP = 30 * 86400


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text))  # its ValueError names what is wrong


Model = Annotated[str, Field(min_length=1, max_length=256)]
Models = Annotated[list[Model], Field(min_length=1, max_length=1000)]
Scopes = Annotated[list[Literal["inference", "files", "batches"]], Field(min_length=1)]
Region = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
Regions = Annotated[list[Region], Field(min_length=1, max_length=100)]
Network = Annotated[str, AfterValidator(_network)]
Networks = Annotated[list[Network], Field(min_length=1, max_length=100)]
Moment = Annotated[int, Field(lt=2**53)]


class _Policy(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    models: Models | None = Field(None, description="The models this key may use; null: every model.")
    scopes: Scopes | None = Field(None, description="What it may do; null: everything.")
    regions: Regions | None = Field(None, description="Where its requests may be answered; null: everywhere.")
    networks: Networks | None = Field(None, description="Where it may be used from, as CIDR; null: everywhere.")
    expires_at: Moment | None = Field(None, description="Unix seconds; null: never.")


class NewKey(_Policy):
    name: Name
    project_id: str | None = Field(None, description="The organization's oldest project when left out.")


class KeyChange(_Policy):
    """What is left out stays as it is; null takes a restriction away."""

    name: Name | None = None


class Rotation(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    overlap_seconds: int = Field(
        86400, ge=0, le=LONGEST_OVERLAP, description="How long the old key is still valid beside the new one."
    )


class Key(BaseModel):
    object: Literal["key"] = "key"
    id: str
    name: str
    redacted: str
    project_id: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None = Field(description="Unix seconds, to within a minute.")
    models: list[str] | None
    scopes: list[str] | None
    regions: list[str] | None
    networks: list[str] | None
    service_account_id: str | None
    rotated_from: str | None = Field(description="The key that this one replaces.")


class CreatedKey(Key):
    key: str = Field(description="The whole key. It is shown this once.")


class KeyList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Key]


@router.post("", status_code=201)
async def create(body: NewKey, services: ServicesDep, actor: WriteKeys) -> CreatedKey:
    secret = Secret.generate(API_PREFIX)
    async with changing(services, actor) as change:
        policy = _policy(body, Policy(), change.now)
        project = await _project(change, actor, body.project_id)
        key = await api_keys.create(change.connection, secret, project, body.name, policy=policy, now=change.now)
        await change.log("api_key.created", key.id, project_id=project, after=shown(key))
        change.announce(lambda: services.announcer.add_key(key))
    return CreatedKey(key=secret.text, **_fields(key))


@router.get("")
async def list_all(services: ServicesDep, actor: ReadTenants) -> KeyList:
    """Newest first, revoked ones included."""
    async with services.database.read() as connection:
        found = await api_keys.every(connection, actor.organization_id)
    return KeyList(data=[Key(**_fields(key)) for key in found])


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, actor: ReadTenants) -> Key:
    async with services.database.read() as connection:
        key = await api_keys.find(connection, id, actor.organization_id)
    return Key(**_fields(_known(key, id)))


@router.post("/{id}")
async def update(id: str, body: KeyChange, services: ServicesDep, actor: WriteKeys) -> Key:
    async with changing(services, actor) as change:
        before = _known(await api_keys.find(change.connection, id, actor.organization_id), id)
        if before.revoked_at is not None:
            raise InvalidRequest("A revoked key cannot be changed; make a new one.", code="key_revoked")
        policy = _policy(body, before.policy, change.now)
        await api_keys.change(change.connection, id, body.name or before.name, policy)
        key = _known(await api_keys.find(change.connection, id), id)
        await change.log("api_key.updated", id, project_id=key.project_id, before=shown(before), after=shown(key))
        await _announce(services, change, key)
    return Key(**_fields(key))


@router.post("/{id}/rotate", status_code=201)
async def rotate(id: str, body: Rotation, services: ServicesDep, actor: WriteKeys) -> CreatedKey:
    """A new key that may do the same; the old one is valid until `overlap_seconds` from now."""
    secret = Secret.generate(API_PREFIX)
    async with changing(services, actor) as change:
        before = _known(await api_keys.find(change.connection, id, actor.organization_id), id)
        if before.revoked_at is not None or (before.expires_at or change.now + 1) <= change.now:
            raise InvalidRequest("This key is not valid any more; make a new one.", code="key_revoked")
        key = await api_keys.create(
            change.connection,
            secret,
            before.project_id,
            before.name,
            policy=before.policy,
            now=change.now,
            service_account_id=before.service_account_id,
            rotated_from=id,
        )
        ends = change.now + body.overlap_seconds
        ends = ends if before.expires_at is None else min(ends, before.expires_at)
        old = Policy(before.models, before.scopes, before.regions, before.networks, ends)
        await api_keys.change(change.connection, id, before.name, old)
        after = {**shown(key), "old_expires_at": ends}
        await change.log("api_key.rotated", id, project_id=key.project_id, before=shown(before), after=after)
        ending = _known(await api_keys.find(change.connection, id), id)
        await _announce(services, change, ending)
        await _announce(services, change, key)
    return CreatedKey(key=secret.text, **_fields(key))


@router.delete("/{id}")
async def revoke(id: str, services: ServicesDep, actor: WriteKeys) -> Key:
    """Revoking again changes nothing."""
    async with changing(services, actor) as change:
        return Key(**_fields(await revoked(services, change, actor, id)))


async def revoked(services: ServicesDep, change: Change, actor: Actor, id: str) -> ApiKey:
    before = _known(await api_keys.find(change.connection, id, actor.organization_id), id)
    key = _known(await api_keys.revoke(change.connection, id, change.now), id)
    if before.revoked_at is None:
        await change.log("api_key.deleted", id, project_id=key.project_id, before=shown(before))
        change.announce(lambda: services.announcer.remove_keys([key.digest]))
    return key


def shown(key: ApiKey) -> dict[str, Any]:
    """For the audit log."""
    fields = _fields(key)
    return {name: value for name, value in fields.items() if name not in ("last_used_at", "revoked_at")}


async def _announce(services: ServicesDep, change: Change, key: ApiKey) -> None:
    """It may belong to a project that is archived, or end at once."""
    if await api_keys.find_active(change.connection, key.digest, change.now):
        change.announce(lambda: services.announcer.add_key(key))
    else:
        change.announce(lambda: services.announcer.remove_keys([key.digest]))


def _policy(body: _Policy, before: Policy, now: int) -> Policy:
    def wished(name: str) -> Any:
        if name not in body.model_fields_set:
            return getattr(before, name)
        value = getattr(body, name)
        return tuple(dict.fromkeys(value)) if isinstance(value, list) else value

    policy = Policy(*(wished(name) for name in ("models", "scopes", "regions", "networks", "expires_at")))
    if policy.expires_at is not None and policy.expires_at <= now and "expires_at" in body.model_fields_set:
        raise InvalidRequest("expires_at: must be a time to come, in Unix seconds.", param="expires_at")
    return policy


async def _project(change: Change, actor: Actor, id: str | None) -> str:
    if id is None:
        project = await tenants.default_project(change.connection, actor.organization_id)
        if project is None:
            raise InvalidRequest("project_id: every project is archived; create one first.", param="project_id")
        return project.id
    project = await tenants.project(change.connection, id, actor.organization_id)
    if project is None or project.archived_at is not None:
        raise InvalidRequest(f"project_id: there is no active project {id!r}.", param="project_id")
    return project.id


def _known(key: ApiKey | None, id: str) -> ApiKey:
    if key is None:
        raise NotFound(f"There is no key with the id {id!r}.", param="id", code="key_not_found")
    return key


def _fields(key: ApiKey) -> dict[str, Any]:
    values = {name: getattr(key, name) for name in Key.model_fields if name != "object"}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
