"""A project's rate limits per model, in OpenAI's words. The same limits, and more kinds, are at `/admin/v1/limits`.

OpenAI's records have no word for "no limit": it is told, and may be set, as 2^53 - 1.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import ReadTenants, WriteLimits
from tokenworks.control.admin import limiting
from tokenworks.control.admin.limiting import LARGEST
from tokenworks.control.admin.organization.shapes import (
    After,
    Limit,
    Listing,
    Wish,
    listed,
    missing,
    open_project,
    project_of,
)
from tokenworks.control.changes import changing
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import limits
from tokenworks.control.storage.pages import UnknownCursor
from tokenworks.core.errors import InvalidRequest
from tokenworks.snapshot.records import LimitRecord

router = APIRouter(prefix="/v1/organization/projects/{project_id}/rate_limits", tags=["limits"])

KINDS = {
    "max_requests_per_1_minute": ("requests", 60),
    "max_tokens_per_1_minute": ("tokens", 60),
    "max_requests_per_1_day": ("requests", 86400),
}
PREFIX = "rl-"

Most = Annotated[int | None, Field(ge=0, le=LARGEST)]


class RateLimitChange(Wish):
    """What is left out stays as it is."""

    max_requests_per_1_minute: Most = None
    max_tokens_per_1_minute: Most = None
    max_requests_per_1_day: Most = None
    max_images_per_1_minute: Most = Field(None, description="Not enforced here, so refused.")
    max_audio_megabytes_per_1_minute: Most = Field(None, description="Not enforced here, so refused.")
    batch_1_day_max_input_tokens: Most = Field(None, description="Not enforced here, so refused.")


class RateLimit(BaseModel):
    object: Literal["project.rate_limit"] = "project.rate_limit"
    id: str
    model: str
    max_requests_per_1_minute: int
    max_tokens_per_1_minute: int
    max_requests_per_1_day: int


@router.get("")
async def list_all(
    project_id: str,
    services: ServicesDep,
    actor: ReadTenants,
    limit: Limit = 100,
    after: After = None,
    before: After = None,
) -> Listing[RateLimit]:
    """One for each model, by name."""
    async with services.database.read() as connection:
        await project_of(connection, project_id, actor)
        every = await _every(connection, services, project_id)
    names = [each.id for each in every]
    for cursor in filter(None, (after, before)):
        if cursor not in names:
            raise UnknownCursor(cursor)
    first = names.index(after) + 1 if after else 0
    last = names.index(before) if before else len(every)
    found: Listing[RateLimit] = listed(every[first:last][:limit], last - first > limit)
    return found


@router.post("/{id:path}")
async def update(
    project_id: str,
    id: Annotated[str, Path(description="As in the list: `rl-` and the name of the model.")],
    body: RateLimitChange,
    services: ServicesDep,
    actor: WriteLimits,
) -> RateLimit:
    wished = body.model_dump(exclude_none=True)
    for name in wished.keys() - KINDS.keys():
        raise InvalidRequest(f"{name}: this is not enforced here; leave it out.", param=name)
    model = id.removeprefix(PREFIX)
    if not id.startswith(PREFIX) or model not in services.publisher.state.models:
        raise missing("rate limit", id)
    records = [LimitRecord("project", project_id, model, *_kind(name, value)) for name, value in wished.items()]
    async with services.database.read() as connection:
        for record in records:
            await limiting.check_free(services, actor, await limits.named(connection, record))
    async with changing(services, actor) as change:
        await open_project(change.connection, project_id, actor)
        for record in records:
            known = await limits.named(change.connection, record)
            if record.limit < LARGEST:
                await limiting.put(change, services, actor, actor.organization_id, record)
            elif known is not None:
                await limiting.remove(change, services, known)
        every = await _every(change.connection, services, project_id)
    return next(each for each in every if each.id == id)


def _kind(name: str, value: int) -> tuple[str, int, int]:
    kind, window = KINDS[name]
    return kind, value, window


async def _every(connection: AsyncConnection, services: Services, project_id: str) -> list[RateLimit]:
    of_model: dict[str, dict[str, Any]] = {name: {} for name in services.publisher.state.models}
    for limit in await limits.of_subject(connection, "project", project_id):
        record = limit.record
        for name, kind in KINDS.items():
            if kind == (record.kind, record.window) and record.model in of_model and not record.period:
                of_model[record.model][name] = record.limit
    unlimited = dict.fromkeys(KINDS, LARGEST)
    return [
        RateLimit(id=f"{PREFIX}{model}", model=model, **{**unlimited, **known})
        for model, known in sorted(of_model.items())
    ]
