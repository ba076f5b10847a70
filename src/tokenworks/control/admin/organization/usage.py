"""Usage by model, key and project over time: completions (whatever generates) and embeddings."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from tokenworks.control.access import Actor, ReadUsage
from tokenworks.control.admin.organization.buckets import WIDTHS, BucketPage, cut, span
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import reports
from tokenworks.core.errors import InvalidRequest

router = APIRouter(prefix="/v1/organization/usage", tags=["usage"])

PAGES = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}
COLUMNS = {
    "project_id": "project_id",
    "api_key_id": "key_id",
    "model": "model",
    "batch": "batch",
    "service_tier": "tier",
}
"""What can be grouped by, and its column."""

Names = Annotated[list[str], Field(min_length=1, max_length=100)] | None


class EmbeddingsQuestion(BaseModel):
    model_config = ConfigDict(extra="forbid")

    start_time: int = Field(ge=0, lt=2**33, description="Unix seconds.")
    end_time: int | None = Field(None, ge=0, lt=2**33, description="Exclusive; now when left out.")
    bucket_width: Literal["1m", "1h", "1d"] = "1d"
    group_by: list[Literal["project_id", "api_key_id", "model", "user_id"]] = []
    project_ids: Names = None
    api_key_ids: Names = None
    models: Names = None
    user_ids: Names = Field(None, description="No key belongs to a user here, so this finds nothing.")
    limit: int | None = Field(None, ge=1, description="Buckets of a page: 7 days, 24 hours or 60 minutes.")
    page: str | None = Field(None, max_length=40)


class CompletionsQuestion(EmbeddingsQuestion):
    group_by: list[Literal["project_id", "api_key_id", "model", "user_id", "batch", "service_tier"]] = []  # type: ignore[assignment]
    batch: bool | None = None


class Groups(BaseModel):
    """Null where it was not grouped by."""

    project_id: str | None = None
    user_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None


class EmbeddingsResult(Groups):
    object: Literal["organization.usage.embeddings.result"] = "organization.usage.embeddings.result"
    input_tokens: int
    num_model_requests: int


class CompletionsResult(Groups):
    object: Literal["organization.usage.completions.result"] = "organization.usage.completions.result"
    input_tokens: int = Field(description="All of them: uncached, cached and written to the cache.")
    input_uncached_tokens: int
    input_cached_tokens: int
    input_cache_write_tokens: int
    output_tokens: int
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    num_model_requests: int = Field(description="Attempts that failed are not among them.")
    batch: bool | None = None
    service_tier: str | None = None


@router.get("/completions")
async def completions(
    services: ServicesDep, actor: ReadUsage, asked: Annotated[CompletionsQuestion, Query()]
) -> BucketPage[CompletionsResult]:
    members = {} if asked.batch is None else {"batch": [asked.batch]}
    page: BucketPage[CompletionsResult] = await _answer(services, actor, asked, members, embeddings=False)
    return page


@router.get("/embeddings")
async def embeddings(
    services: ServicesDep, actor: ReadUsage, asked: Annotated[EmbeddingsQuestion, Query()]
) -> BucketPage[EmbeddingsResult]:
    page: BucketPage[EmbeddingsResult] = await _answer(services, actor, asked, {}, embeddings=True)
    return page


async def _answer(
    services: Services, actor: Actor, asked: EmbeddingsQuestion, members: dict[str, Any], *, embeddings: bool
) -> Any:
    usual, most = PAGES[asked.bucket_width]
    if asked.limit is not None and asked.limit > most:
        raise InvalidRequest(f"limit: at most {most} with bucket_width={asked.bucket_width}.", param="limit")
    width = WIDTHS[asked.bucket_width]
    chosen = span(asked.start_time, asked.end_time, width, asked.limit or usual, asked.page, services.now())
    for column, values in (("project_id", asked.project_ids), ("key_id", asked.api_key_ids), ("model", asked.models)):
        if values:
            members[column] = values
    groups: list[str] = list(dict.fromkeys(asked.group_by))
    question = reports.Question(
        organization_id=actor.organization_id,
        start=chosen.start,
        end=chosen.end,
        width=width,
        group_by=[COLUMNS[name] for name in groups if name in COLUMNS],
        members=members,
        embeddings=embeddings,
    )
    rows: list[Any] = []
    if not asked.user_ids:
        async with services.database.read() as connection:
            rows = await reports.buckets(connection, question)
    return cut(chosen, rows, lambda row: [_embeddings(row) if embeddings else _completions(row)])


def _embeddings(row: Any) -> EmbeddingsResult:
    return EmbeddingsResult(input_tokens=_input(row), num_model_requests=row["requests"], **_groups(row))


def _completions(row: Any) -> CompletionsResult:
    return CompletionsResult(
        input_tokens=_input(row),
        input_uncached_tokens=row["input"],
        input_cached_tokens=row["cached_input"],
        input_cache_write_tokens=row["cache_write"],
        output_tokens=row["output"],
        input_audio_tokens=row["input_audio"],
        output_audio_tokens=row["output_audio"],
        num_model_requests=row["requests"],
        batch=row.get("batch"),
        service_tier=(row["tier"] or "default") if "tier" in row else None,
        **_groups(row),
    )


def _input(row: Any) -> int:
    return int(row["input"] + row["cached_input"] + row["cache_write"])


def _groups(row: Any) -> dict[str, Any]:
    return {name: row.get(COLUMNS[name]) for name in ("project_id", "api_key_id", "model")}
