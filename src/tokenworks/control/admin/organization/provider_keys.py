"""A project's own keys of providers: its requests to them are made with these alone, and cost it nothing here.

Which providers there are, and where they are, is the operator's to say: no address can be given.
"""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, SecretStr

from tokenworks.control.access import ReadTenants, WriteKeys
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
from tokenworks.control.changes import changing
from tokenworks.control.keys import new_id
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import provider_keys
from tokenworks.control.storage.provider_keys import ProviderKey
from tokenworks.core.errors import InvalidRequest
from tokenworks.snapshot.sealing import owned, seal

router = APIRouter(prefix="/v1/organization/projects/{project_id}/provider_keys", tags=["provider keys"])

SHOWN = 4
"""Characters at the end of a key by which its owner knows it; none of a short one."""


class NewProviderKey(Wish):
    provider: str = Field(min_length=1, max_length=200)
    key: Annotated[SecretStr, Field(min_length=1, max_length=16_384, description="Sealed at once and never shown.")]
    name: Name = ""


class Shown(BaseModel):
    object: Literal["organization.project.provider_key"] = "organization.project.provider_key"
    id: str
    project_id: str
    provider: str
    name: str
    redacted_value: str
    created_at: int


@router.post("", status_code=201)
async def create(project_id: str, body: NewProviderKey, services: ServicesDep, actor: WriteKeys) -> Shown:
    """In force at every connected gateway within a second."""
    async with changing(services, actor) as change:
        await open_project(change.connection, project_id, actor)
        _require(services, body.provider)
        secret = body.key.get_secret_value().strip()
        if not secret or not all(character.isprintable() or character in "\r\n\t" for character in secret):
            raise InvalidRequest("'key' is empty or holds control characters.", param="key")
        sealed = seal(services.cluster_key, owned(body.provider, project_id), secret)
        redacted = f"...{secret[-SHOWN:]}" if len(secret) >= 4 * SHOWN and secret.isascii() else "..."
        redacted = redacted if redacted.isprintable() and not secret.startswith("{") else "..."
        name = body.name or body.provider
        made = ProviderKey(new_id("pkey"), project_id, body.provider, name, redacted, sealed, change.now)
        await provider_keys.add(change.connection, made)
        await change.log("provider_key.created", made.id, project_id=project_id, after=_logged(made))
        own = await provider_keys.published(change.connection)
        change.announce(lambda: services.announcer.announce_own_keys(own))
        return _shape(made)


@router.get("")
async def list_all(
    project_id: str, services: ServicesDep, actor: ReadTenants, limit: Limit = 20, after: After = None
) -> Listing[Shown]:
    async with services.database.read() as connection:
        await project_of(connection, project_id, actor)
        found: Listing[Shown] = listing(await provider_keys.of_project(connection, project_id, limit, after), _shape)
    return found


@router.delete("/{id}")
async def delete(project_id: str, id: str, services: ServicesDep, actor: WriteKeys) -> Deleted:
    async with changing(services, actor) as change:
        await project_of(change.connection, project_id, actor)
        found = await provider_keys.find(change.connection, id, project_id)
        if found is None:
            raise missing("provider key", id)
        await provider_keys.remove(change.connection, id)
        await change.log("provider_key.deleted", id, project_id=project_id, before=_logged(found))
        own = await provider_keys.published(change.connection)
        change.announce(lambda: services.announcer.announce_own_keys(own))
    return Deleted(object="organization.project.provider_key.deleted", id=id)


def _require(services: Services, provider: str) -> None:
    known = services.announcer.endpoints
    if provider not in known:
        raise InvalidRequest(
            f"There is no provider {provider!r} here; there are: {', '.join(sorted(known)) or 'none'}.",
            param="provider",
            code="provider_not_found",
        )


def _logged(key: ProviderKey) -> dict[str, str]:
    return {"provider": key.provider, "name": key.name, "redacted_value": key.redacted}


def _shape(key: ProviderKey) -> Shown:
    return Shown(
        id=key.id,
        project_id=key.project_id,
        provider=key.provider,
        name=key.name,
        redacted_value=key.redacted,
        created_at=key.created_at,
    )
