"""`/admin/v1/budgets`: what may be spent in a day, a week, a month or in total, and what is spent of it.

A budget is a limit of the kind `spend_nano_usd`; here it is spoken of in USD, with its thresholds and its state.
"""

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, field_validator, model_validator

from tokenworks.control.access import Actor, ReadTenants, WriteSpend
from tokenworks.control.admin import limiting
from tokenworks.control.admin.limits import Scope
from tokenworks.control.admin.organization.shapes import After, Listing, Wish, missing
from tokenworks.control.budgets.watch import period_began
from tokenworks.control.changes import changing
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import limits, spending
from tokenworks.control.storage.limits import Limit, Terms
from tokenworks.core.errors import InvalidRequest
from tokenworks.core.money import nano_to_usd, usd_to_nano
from tokenworks.core.windows import PERIODS, beginning, epoch_at
from tokenworks.snapshot.records import LimitRecord

router = APIRouter(prefix="/admin/v1/budgets", tags=["limits"])

KIND = "spend_nano_usd"
Period = Literal["day", "week", "month", "total"]


class NewBudget(Wish):
    """It takes the place of the budget with the same scope, subject, model and period."""

    scope: Scope
    subject: str = Field(min_length=1, max_length=256, description="The id; for a model or a provider, its name.")
    model: str | None = Field(None, min_length=1, max_length=256, description="Only requests for this model count.")
    period: Period = Field(description="Of the calendar; weeks begin on Monday.")
    limit_usd: str = Field(max_length=40, description='Decimal USD, exact to a nano-dollar: "12.50".')
    alert_only: bool = Field(False, description="Only thresholds fire; nothing is refused.")
    thresholds: list[Annotated[int, Field(ge=1, le=1000)]] = Field(
        [50, 80, 100], max_length=10, description="Percent of the limit at which webhooks hear of it, once per period."
    )
    utc_offset_minutes: int = Field(0, ge=-14 * 60, le=14 * 60, description="Where midnight is: 120 is UTC+2.")

    @field_validator("limit_usd")
    @classmethod
    def _is_money(cls, text: str) -> str:
        if not 0 <= usd_to_nano(text) <= limiting.LARGEST:
            raise ValueError(f"from 0 to {nano_to_usd(limiting.LARGEST)} USD")
        return text

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if self.scope == "model" and self.model is not None:
            raise ValueError("the subject names the model already: leave out model")
        return self

    def record(self) -> LimitRecord:
        offset = -60 * self.utc_offset_minutes
        amount = usd_to_nano(self.limit_usd)
        return LimitRecord(
            self.scope, self.subject, self.model, KIND, amount, period=self.period, strict=True, offset=offset
        )


class Budget(BaseModel):
    object: Literal["budget"] = "budget"
    id: str
    scope: Scope
    subject: str
    model: str | None
    period: Period
    limit_usd: str
    limit_nano_usd: int
    spent_usd: str = Field(description="Of the current period, as far as gateways have reported: about a second ago.")
    spent_nano_usd: int
    remaining_nano_usd: int = Field(description="Negative when an alert-only budget is overspent.")
    alert_only: bool
    thresholds: list[int]
    thresholds_reached: list[int]
    utc_offset_minutes: int
    period_began_at: int | None
    period_ends_at: int | None
    set_by_operator: bool
    created_at: int


@router.post("", status_code=201)
async def put(body: NewBudget, services: ServicesDep, actor: WriteSpend) -> Budget:
    """Set a budget, or change it. It is in force within a second; what is spent already counts."""
    owner = await limiting.owner(services, actor, body.scope, body.subject)
    terms = Terms(body.alert_only, tuple(sorted(set(body.thresholds))))
    made = await limiting.put_named(services, actor, owner, body.record(), terms)
    return await _shape(services, made)


@router.get("")
async def list_all(
    services: ServicesDep,
    actor: ReadTenants,
    scope: Scope | None = None,
    subject: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
    after: After = None,
) -> Listing[Budget]:
    """The organization's own, newest first; the operator sees all."""
    chosen = {"kind": KIND} | {name: value for name, value in (("scope", scope), ("subject", subject)) if value}
    owners = None if actor.is_operator else [actor.organization_id]
    async with services.database.read() as connection:
        page = await limits.some(connection, owners, chosen, limit, after)
    data = [await _shape(services, each) for each in page.data if each.record.period]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return Listing(data=data, first_id=first, last_id=last, has_more=page.has_more)


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, actor: ReadTenants) -> Budget:
    return await _shape(services, await _find(services, actor, id))


@router.delete("/{id}")
async def delete(id: str, services: ServicesDep, actor: WriteSpend) -> Budget:
    found = await _find(services, actor, id)
    await limiting.check_free(services, actor, found)
    shown = await _shape(services, found)
    async with changing(services, actor) as change:
        await limiting.remove(change, services, found)
    return shown


async def _find(services: Services, actor: Actor, id: str) -> Limit:
    async with services.database.read() as connection:
        found = await limits.find(connection, id)
    if (
        found is None
        or found.record.kind != KIND
        or not (actor.is_operator or found.organization_id == actor.organization_id)
    ):
        raise missing("budget", id)
    return found


async def _shape(services: Services, budget: Limit) -> Budget:
    record, now = budget.record, services.now()
    window = PERIODS.get(record.period, record.window)
    begins = period_began(record, now)
    ends = beginning(epoch_at(now, window, record.offset) + 1, window, record.offset)
    async with services.database.read() as connection:
        spent = (await services.budgets.spent(connection, budget)).spent
        reached = await spending.passed(connection, budget.id, begins)
    if record.period not in PERIODS:
        raise InvalidRequest("This is a limit of a window, not a budget; see /admin/v1/limits.", param="id")
    return Budget(
        id=budget.id,
        scope=_SCOPE[record.scope],
        subject=record.id,
        model=record.model,
        period=_PERIOD[record.period],
        limit_usd=nano_to_usd(record.limit),
        limit_nano_usd=record.limit,
        spent_usd=nano_to_usd(spent),
        spent_nano_usd=spent,
        remaining_nano_usd=record.limit - spent,
        alert_only=budget.terms.alert_only,
        thresholds=list(budget.terms.thresholds),
        thresholds_reached=sorted(reached),
        utc_offset_minutes=-record.offset // 60,
        period_began_at=begins or None,
        period_ends_at=ends or None,
        set_by_operator=budget.set_by_operator,
        created_at=budget.created_at,
    )


_SCOPE: dict[str, Scope] = {
    "key": "key",
    "project": "project",
    "organization": "organization",
    "model": "model",
    "provider": "provider",
}
_PERIOD: dict[str, Period] = {"day": "day", "week": "week", "month": "month", "total": "total"}
