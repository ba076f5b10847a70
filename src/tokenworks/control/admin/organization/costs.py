"""What was charged, by the day. A line item is a model."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from tokenworks.control.access import ReadCosts
from tokenworks.control.admin.organization.buckets import WIDTHS, BucketPage, cut, span
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import reports

router = APIRouter(prefix="/v1/organization/costs", tags=["usage"])

COLUMNS = {"project_id": "project_id", "line_item": "model", "api_key_id": "key_id"}
NANO_PER_USD = 1_000_000_000

Names = Annotated[list[str], Field(min_length=1, max_length=100)] | None


class CostsQuestion(BaseModel):
    model_config = ConfigDict(extra="forbid")

    start_time: int = Field(ge=0, lt=2**33, description="Unix seconds.")
    end_time: int | None = Field(None, ge=0, lt=2**33, description="Exclusive; now when left out.")
    bucket_width: Literal["1d"] = "1d"
    group_by: list[Literal["project_id", "line_item", "api_key_id"]] = []
    project_ids: Names = None
    api_key_ids: Names = None
    line_items: Names = None
    limit: int = Field(7, ge=1, le=180, description="Days of a page.")
    page: str | None = Field(None, max_length=40)


class Amount(BaseModel):
    value: float = Field(description="In the currency's unit; `nano_usd` is exact.")
    currency: Literal["usd"] = "usd"
    nano_usd: int


class CostsResult(BaseModel):
    object: Literal["organization.costs.result"] = "organization.costs.result"
    amount: Amount
    line_item: str | None
    project_id: str | None
    api_key_id: str | None


@router.get("")
async def costs(
    services: ServicesDep, actor: ReadCosts, asked: Annotated[CostsQuestion, Query()]
) -> BucketPage[CostsResult]:
    width = WIDTHS[asked.bucket_width]
    chosen = span(asked.start_time, asked.end_time, width, asked.limit, asked.page, services.now())
    filters = (("project_id", asked.project_ids), ("key_id", asked.api_key_ids), ("model", asked.line_items))
    question = reports.Question(
        organization_id=actor.organization_id,
        start=chosen.start,
        end=chosen.end,
        width=width,
        group_by=[COLUMNS[name] for name in dict.fromkeys(asked.group_by)],
        members={column: values for column, values in filters if values},
    )
    async with services.database.read() as connection:
        rows = await reports.buckets(connection, question)
    found: BucketPage[CostsResult] = cut(chosen, rows, lambda row: [_shape(row)])
    return found


def _shape(row: Any) -> CostsResult:
    nano = int(row["charge"])
    groups: dict[str, Any] = {name: row.get(column) for name, column in COLUMNS.items()}
    return CostsResult(amount=Amount(value=nano / NANO_PER_USD, nano_usd=nano), **groups)
