"""Which guardrails look at an organization's requests. They are made in the configuration file."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import ReadTenants
from tokenworks.control.admin.organization.shapes import missing, project_of
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import api_keys, tenants
from tokenworks.snapshot.records import GuardrailRecord

router = APIRouter(prefix="/v1/organization", tags=["guardrails"])


class Guardrail(BaseModel):
    object: Literal["organization.guardrail"] = "organization.guardrail"
    name: str
    kind: str
    phase: str
    action: str | None = Field(description="What a redactor does with what it finds.")
    on_failure: str | None = Field(description="What an http hook's failure does: closed, nothing passes, or open.")
    entities: list[str]
    patterns: list[str] = Field(description="Names of the operator's own.")
    restore: bool
    all: bool
    models: list[str]
    projects: list[str] = Field(description="Of this organization.")
    keys: list[str] = Field(description="Of this organization.")


class Guardrails(BaseModel):
    object: Literal["list"] = "list"
    data: list[Guardrail] = Field(description="In the order in which they look.")


@router.get("/guardrails")
async def list_guardrails(
    services: ServicesDep, actor: ReadTenants, project_id: str = "", key_id: str = "", model: str = ""
) -> Guardrails:
    """With any of the parameters: those that look at a request of this project, with this key, for this model."""
    state = services.publisher.state
    async with services.database.read() as connection:
        if project_id:
            await project_of(connection, project_id, actor)
        if key_id:
            key = await api_keys.find(connection, key_id, actor.organization_id)
            if key is None:
                raise missing("key", key_id)
            project_id = project_id or key.project_id
        if project_id or key_id or model:
            found = list(state.guardrails_of(key_id, project_id, model))
        else:
            found = sorted(state.guardrails.values(), key=lambda each: each.position)
        shapes = [await _shape(connection, each, actor.organization_id) for each in found]
    return Guardrails(data=[each for each in shapes if each.all or each.models or each.projects or each.keys])


async def _shape(connection: AsyncConnection, record: GuardrailRecord, organization_id: str) -> Guardrail:
    finds = record.kind == "redactor"
    projects = [each for each in record.projects if await tenants.project(connection, each, organization_id)]
    keys = [each for each in record.keys if await api_keys.find(connection, each, organization_id)]
    return Guardrail(
        name=record.name,
        kind=record.kind,
        phase=record.phase,
        action=record.action if finds else None,
        on_failure=None if finds else record.on_failure,
        entities=list(record.entities) if finds else [],
        patterns=[name for name, _ in record.patterns],
        restore=record.restore,
        all=record.everybody,
        models=list(record.models),
        projects=projects,
        keys=keys,
    )
