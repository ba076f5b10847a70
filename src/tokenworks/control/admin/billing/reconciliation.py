"""A provider's export beside our own usage."""

import calendar
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.engine import Connection

from tokenworks.control.access import WriteBilling
from tokenworks.control.admin.organization.shapes import Wish
from tokenworks.control.ledger.reconciliation import compare, exports
from tokenworks.control.ledger.reconciliation.compare import Row
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import reconciliation
from tokenworks.core.errors import InvalidRequest

router = APIRouter(prefix="/admin/v1/billing/reconciliations", tags=["billing"])

LONGEST_DAYS = 400

Measures = Annotated[dict[str, int], Field(description="requests, tokens by kind, cost in nano-dollars")]


class ReconciliationWish(Wish):
    provider: str = Field(min_length=1, max_length=256, description="Its name in our own usage.")
    exports: list[str] = Field(min_length=1, max_length=1000, description="Pages as the provider gave them, or CSV.")
    keys: dict[str, str] = Field(default={}, description="Our upstream for each of the provider's key ids.")
    tolerance: float = Field(0, ge=0, le=1, description="The share that may be missing.", strict=False)


class Suspect(BaseModel):
    request_id: str
    attempt: int
    why: str
    outcome: str
    measures: Measures


class Drift(BaseModel):
    day: str
    model: str
    key: str
    ours: Measures
    theirs: Measures
    drift: Measures = Field(description="Theirs less ours.")
    exceeds: bool
    requests: list[Suspect]
    more_requests: int


class Reconciliation(BaseModel):
    object: Literal["billing.reconciliation"] = "billing.reconciliation"
    provider: str
    first_day: str
    last_day: str
    drifting: int = Field(description="Of the rows, how many exceed the tolerance.")
    ours: Measures
    theirs: Measures
    data: list[Drift]


@router.post("")
async def reconcile(body: ReconciliationWish, services: ServicesDep, _: WriteBilling) -> Reconciliation:
    """Drift by day, model and key, with the requests that may be behind it. Nothing is stored."""
    export = exports.read(body.exports)
    if not export.days:
        raise InvalidRequest("exports: they cover no day.", param="exports")
    first, last = min(export.days), max(export.days)
    start, end = _seconds(first), _seconds(last) + 86400
    if end - start > LONGEST_DAYS * 86400:
        raise InvalidRequest(f"exports: at most {LONGEST_DAYS} days at once.", param="exports")

    def work(connection: Connection) -> list[Row]:
        known = reconciliation.providers(connection, start, end)
        if known and body.provider not in known:
            raise InvalidRequest(
                f"provider: our usage of these days knows {', '.join(known)}.",
                param="provider",
                code="unknown_provider",
            )
        own = reconciliation.attempts(connection, body.provider, start, end)
        return compare.compare(export, own, body.keys, body.tolerance)

    async with services.database.read() as connection:
        rows = await connection.run_sync(work)
    data = [_shape(row, body.tolerance) for row in rows]
    return Reconciliation(
        provider=body.provider,
        first_day=first,
        last_day=last,
        drifting=sum(each.exceeds for each in data),
        ours=_sum(data, "ours"),
        theirs=_sum(data, "theirs"),
        data=data,
    )


def _seconds(day: str) -> int:
    return calendar.timegm((*map(int, day.split("-")), 0, 0, 0))


def _sum(data: list[Drift], side: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for row in data:
        measures: dict[str, Any] = getattr(row, side)
        for name, value in measures.items():
            sums[name] = sums.get(name, 0) + value
    return sums


def _shape(row: Row, tolerance: float) -> Drift:
    return Drift(
        day=row.day,
        model=row.model,
        key=row.key,
        ours=row.ours,
        theirs=row.theirs,
        drift=row.drift,
        exceeds=row.exceeds(tolerance),
        requests=[
            Suspect(
                request_id=each.attempt.request_id,
                attempt=each.attempt.attempt,
                why=each.why,
                outcome=each.attempt.outcome,
                measures=dict(each.attempt.measures),
            )
            for each in row.suspects
        ],
        more_requests=row.more_suspects,
    )
