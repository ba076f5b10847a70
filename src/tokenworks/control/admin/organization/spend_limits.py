"""What an organization or a project may spend in a calendar month."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenworks.control.access import Actor, ReadTenants, WriteSpend
from tokenworks.control.admin import limiting
from tokenworks.control.admin.organization.shapes import Wish, open_project, project_of
from tokenworks.control.changes import changing
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import limits
from tokenworks.core.errors import NotFound
from tokenworks.snapshot.records import LimitRecord

router = APIRouter(prefix="/v1/organization", tags=["limits"])

NANO_PER_CENT = 10_000_000


class SpendLimitWish(Wish):
    currency: Literal["USD"]
    interval: Literal["month"]
    threshold_amount: int = Field(ge=0, le=10**11, description="Cents.")


class SpendLimit(BaseModel):
    object: str
    currency: Literal["USD"] = "USD"
    interval: Literal["month"] = "month"
    threshold_amount: int = Field(description="Cents, rounded down.")
    enforcement: dict[str, str] = {"status": "enforcing"}


class DeletedSpendLimit(BaseModel):
    object: str
    deleted: bool = True


@router.get("/spend_limit")
async def retrieve(services: ServicesDep, actor: ReadTenants) -> SpendLimit:
    return await _get(services, "organization", actor.organization_id)


@router.post("/spend_limit")
async def update(body: SpendLimitWish, services: ServicesDep, actor: WriteSpend) -> SpendLimit:
    return await _set(services, actor, "organization", actor.organization_id, body)


@router.delete("/spend_limit")
async def delete(services: ServicesDep, actor: WriteSpend) -> DeletedSpendLimit:
    return await _remove(services, actor, "organization", actor.organization_id)


@router.get("/projects/{project_id}/spend_limit")
async def retrieve_of_project(project_id: str, services: ServicesDep, actor: ReadTenants) -> SpendLimit:
    async with services.database.read() as connection:
        await project_of(connection, project_id, actor)
    return await _get(services, "project", project_id)


@router.post("/projects/{project_id}/spend_limit")
async def update_of_project(
    project_id: str, body: SpendLimitWish, services: ServicesDep, actor: WriteSpend
) -> SpendLimit:
    async with services.database.read() as connection:
        await open_project(connection, project_id, actor)
    return await _set(services, actor, "project", project_id, body)


@router.delete("/projects/{project_id}/spend_limit")
async def delete_of_project(project_id: str, services: ServicesDep, actor: WriteSpend) -> DeletedSpendLimit:
    async with services.database.read() as connection:
        await project_of(connection, project_id, actor)
    return await _remove(services, actor, "project", project_id)


def _record(scope: str, id: str, nano: int = 0) -> LimitRecord:
    return LimitRecord(scope, id, None, "spend_nano_usd", nano, period="month", strict=True)


async def _get(services: Services, scope: str, id: str) -> SpendLimit:
    return _shape(await _find(services, scope, id))


async def _find(services: Services, scope: str, id: str) -> limits.Limit:
    async with services.database.read() as connection:
        found = await limits.named(connection, _record(scope, id))
    if found is None:
        raise NotFound(f"This {scope} has no spend limit.", code="spend_limit_not_found")
    return found


async def _set(services: Services, actor: Actor, scope: str, id: str, body: SpendLimitWish) -> SpendLimit:
    record = _record(scope, id, body.threshold_amount * NANO_PER_CENT)
    return _shape(await limiting.put_named(services, actor, actor.organization_id, record))


async def _remove(services: Services, actor: Actor, scope: str, id: str) -> DeletedSpendLimit:
    found = await _find(services, scope, id)
    await limiting.check_free(services, actor, found)
    async with changing(services, actor) as change:
        await limiting.remove(change, services, found)
    return DeletedSpendLimit(object=f"{scope}.spend_limit.deleted")


def _shape(limit: limits.Limit) -> SpendLimit:
    return SpendLimit(object=f"{limit.record.scope}.spend_limit", threshold_amount=limit.record.limit // NANO_PER_CENT)
