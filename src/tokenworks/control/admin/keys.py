"""`/admin/v1/keys`: make, list and revoke API keys. A change is published before its answer is sent."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tokenworks.control.keys import API_PREFIX, Secret
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import api_keys, tenants
from tokenworks.control.storage.api_keys import ApiKey, Policy
from tokenworks.core.errors import InvalidRequest, NotFound

router = APIRouter(prefix="/admin/v1/keys", tags=["keys"])


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=200)
    models: list[Annotated[str, Field(min_length=1, max_length=256)]] | None = Field(
        None, min_length=1, max_length=1000, description="The models this key may use; every model when left out."
    )
    expires_at: int | None = Field(None, lt=2**53, description="Unix seconds; never when left out.")

    @field_validator("name")
    @classmethod
    def _printable(cls, name: str) -> str:
        if not name.isprintable() or not name.strip():
            raise ValueError("must be text without control characters")
        return name


class Key(BaseModel):
    object: str = "key"
    id: str
    name: str
    redacted: str
    project_id: str
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None = Field(description="Unix seconds, to within a minute.")
    models: list[str] | None


class CreatedKey(Key):
    key: str = Field(description="The whole key. It is shown this once.")


class KeyList(BaseModel):
    object: str = "list"
    data: list[Key]


@router.post("", status_code=201)
async def create(body: NewKey, services: ServicesDep) -> CreatedKey:
    now = services.now()
    if body.expires_at is not None and body.expires_at <= now:
        raise InvalidRequest("expires_at: must be a time to come, in Unix seconds.", param="expires_at")
    secret = Secret.generate(API_PREFIX)
    models = None if body.models is None else tuple(dict.fromkeys(body.models))
    async with services.database.write() as connection:
        project = await tenants.default_project(connection)
        key = await api_keys.create(
            connection, secret, project.id, body.name, policy=Policy(models, expires_at=body.expires_at), now=now
        )
    services.announcer.add_key(key)
    return CreatedKey(key=secret.text, **_fields(key))


@router.get("")
async def list_all(services: ServicesDep) -> KeyList:
    """Newest first, revoked ones included."""
    async with services.database.read() as connection:
        return KeyList(data=[Key(**_fields(key)) for key in await api_keys.every(connection)])


@router.delete("/{id}")
async def revoke(id: str, services: ServicesDep) -> Key:
    """Revoking again changes nothing."""
    async with services.database.write() as connection:
        key = await api_keys.revoke(connection, id, services.now())
    if key is None:
        raise NotFound(f"There is no key with the id {id!r}.", param="id", code="key_not_found")
    services.announcer.remove_key(key.digest)
    return Key(**_fields(key))


def _fields(key: ApiKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in Key.model_fields if name != "object"}
