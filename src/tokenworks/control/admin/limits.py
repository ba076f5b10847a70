"""`/admin/v1/limits`: limits of every kind, on a key, a project, an organization, a model or a provider."""

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, model_validator

from tokenworks.control.access import Actor, ReadTenants, WriteLimits
from tokenworks.control.admin import limiting
from tokenworks.control.admin.organization.shapes import After, Listing, Wish, listing, missing
from tokenworks.control.changes import changing
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import limits
from tokenworks.snapshot.records import LimitRecord

router = APIRouter(prefix="/admin/v1/limits", tags=["limits"])

Scope = Literal["key", "project", "organization", "model", "provider"]
Kind = Literal[
    "requests",
    "input_tokens",
    "output_tokens",
    "tokens",
    "uncached_input_tokens",
    "concurrency",
    "spend_nano_usd",
]


class NewLimit(Wish):
    """It takes the place of the limit with the same scope, subject, model, kind, window and period."""

    scope: Scope
    subject: str = Field(min_length=1, max_length=256, description="The id; for a model or a provider, its name.")
    model: str | None = Field(None, min_length=1, max_length=256, description="Only requests for this model count.")
    kind: Kind
    limit: int = Field(ge=0, le=limiting.LARGEST)
    window_seconds: int | None = Field(
        None, ge=1, le=31 * 86400, description="Windows of so many seconds, one after the other."
    )
    period: Literal["day", "week", "month", "total"] | None = Field(
        None, description="Of the calendar; weeks begin on Monday."
    )
    utc_offset_minutes: int = Field(
        0, ge=-14 * 60, le=14 * 60, description="Where a period's midnight is: 120 is UTC+2."
    )
    strict: bool = Field(False, description="Never exceeded by one unit: the worst case is reserved.")

    @model_validator(mode="after")
    def _one_span(self) -> Self:
        spans = (self.window_seconds is not None) + (self.period is not None)
        if self.kind == "concurrency" and spans:
            raise ValueError("concurrency counts this moment: leave out window_seconds and period")
        if self.kind != "concurrency" and spans != 1:
            raise ValueError("give either window_seconds or period")
        if self.scope == "model" and self.model is not None:
            raise ValueError("the subject names the model already: leave out model")
        return self

    def record(self) -> LimitRecord:
        return LimitRecord(
            self.scope,
            self.subject,
            self.model,
            self.kind,
            self.limit,
            self.window_seconds or 0,
            self.period or "",
            self.strict,
            -60 * self.utc_offset_minutes,
        )


class Limit(BaseModel):
    object: Literal["limit"] = "limit"
    id: str
    scope: Scope
    subject: str
    model: str | None
    kind: Kind
    limit: int
    window_seconds: int
    period: str | None
    strict: bool
    alert_only: bool = Field(description="A budget of which only thresholds are told; see /admin/v1/budgets.")
    thresholds: list[int]
    utc_offset_minutes: int
    set_by_operator: bool = Field(description="Then only the operator may change it.")
    created_at: int


@router.post("", status_code=201)
async def put(body: NewLimit, services: ServicesDep, actor: WriteLimits) -> Limit:
    """Set a limit, or change it. It is in force within a second."""
    owner = await limiting.owner(services, actor, body.scope, body.subject)
    return _shape(await limiting.put_named(services, actor, owner, body.record()))


@router.get("")
async def list_all(
    services: ServicesDep,
    actor: ReadTenants,
    scope: Scope | None = None,
    subject: str | None = None,
    kind: Kind | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: After = None,
) -> Listing[Limit]:
    """The organization's own, newest first; the operator sees all."""
    filters = {"scope": scope, "subject": subject, "kind": kind}
    chosen = {name: value for name, value in filters.items() if value is not None}
    owners = None if actor.is_operator else [actor.organization_id]
    async with services.database.read() as connection:
        page = await limits.some(connection, owners, chosen, limit, after)
    found: Listing[Limit] = listing(page, _shape)
    return found


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, actor: ReadTenants) -> Limit:
    return _shape(await _find(services, actor, id))


@router.delete("/{id}")
async def delete(id: str, services: ServicesDep, actor: WriteLimits) -> Limit:
    found = await _find(services, actor, id)
    await limiting.check_free(services, actor, found)
    async with changing(services, actor) as change:
        await limiting.remove(change, services, found)
    return _shape(found)


async def _find(services: Services, actor: Actor, id: str) -> limits.Limit:
    async with services.database.read() as connection:
        found = await limits.find(connection, id)
    if found is None or not (actor.is_operator or found.organization_id == actor.organization_id):
        raise missing("limit", id)
    return found


def _shape(limit: limits.Limit) -> Limit:
    return Limit(**limiting.shown(limit))
