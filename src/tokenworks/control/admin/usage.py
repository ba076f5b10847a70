"""`/admin/v1/usage`: what each attempt took and cost, newest first, and the sums."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from tokenworks.control.access import ReadUsage
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import usage
from tokenworks.control.storage.usage import Filter
from tokenworks.core.errors import InvalidRequest
from tokenworks.core.money import nano_to_usd

router = APIRouter(prefix="/admin/v1/usage", tags=["usage"])


class Tokens(BaseModel):
    """Disjoint kinds of tokens, of which others are parts, and the units that are sold beside them."""

    input: int = Field(0, description="Neither read from nor written to a prompt cache.")
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = Field(0, description="A part of `output`.")
    cache_write_1h: int = Field(0, description="A part of `cache_write`: kept for an hour or longer.")
    input_audio: int = Field(0, description="A part of `input`.")
    input_image: int = Field(0, description="A part of `input`.")
    output_audio: int = Field(0, description="A part of `output`.")
    output_image: int = Field(0, description="A part of `output`.")
    priced_requests: int = Field(0, description="Requests whose price has a fee for each.")
    audio_ms: int = Field(0, description="Milliseconds of audio, where they are priced.")
    images: int = 0
    gpu_ms: int = Field(0, description="Milliseconds of a GPU, where they are priced.")


class Attempt(BaseModel):
    """One try on one upstream. `outcome` is `open` until it is settled; usage is then what is known so far."""

    object: str = "usage"
    id: str = Field(description="`request_id:attempt`; what `after` takes.")
    request_id: str
    attempt: int
    opened_at: int = Field(description="Unix seconds.")
    settled_at: int | None = Field(description="Unix seconds.")
    key_id: str
    project_id: str
    organization_id: str
    protocol: str
    model: str
    upstream: str
    provider: str
    upstream_model: str
    stream: bool
    alias: str = Field(description="The virtual model that was named; empty where `model` was.")
    alias_version: int = Field(description="Which version of it said that `model` answers; 0 without one.")
    byok: bool = Field(description="Made with a key that the project brought: its provider bills the project.")
    shadow: bool = Field(description="A copy of somebody's request, whose answer nobody saw and nobody pays for.")
    outcome: str
    status: int | None
    error: str | None
    finish_reason: str | None
    usage: Tokens
    estimated: bool
    charge: int = Field(description="Nano-dollars.")
    charge_usd: str = Field(description="The same in USD, exact decimal text.")
    cost: int | None = Field(description="What the attempt cost us, in nano-dollars. Only the operator sees it.")
    price: str = Field(description="The version of the price that was charged.")
    cost_price: str | None = Field(description="The version of our own price. Only the operator sees it.")
    reported: Tokens | None = Field(description="What the upstream reported, where that is not `usage`.")
    counted: Tokens | None = Field(description="What we counted, where the report differs by more than 1 %.")
    residency: str | None = Field(
        description="Which residency policies held for it, and the labels of the upstream that prove them."
    )
    guardrails: str | None = Field(
        description="What guardrails found, as `name:action:entity=count`, several with a comma; never the text."
    )
    first_token_ns: int | None
    duration_ns: int | None


class Totals(BaseModel):
    """Over everything that the filter selects, not only this page."""

    attempts: int
    outcomes: dict[str, int]
    usage: Tokens
    charge: int
    charge_usd: str
    cost: int | None = Field(description="Nano-dollars. Only the operator sees it.")


class UsagePage(BaseModel):
    object: str = "list"
    data: list[Attempt]
    has_more: bool
    last_id: str | None
    totals: Totals


class Wanted(BaseModel):
    """Which attempts: `start` and `end` (exclusive) are Unix seconds of their start."""

    start: int | None = Field(None, ge=0, lt=2**33)
    end: int | None = Field(None, ge=0, lt=2**33)
    key_id: str | None = None
    model: str | None = None
    alias: str | None = Field(None, description="Those whose callers named this virtual model, and copies of them.")
    shadow: bool | None = Field(None, description="Only copies, or none of them.")
    byok: bool | None = Field(None, description="Only those made with keys that projects brought, or none of them.")
    limit: int = Field(100, ge=1, le=1000)
    after: str | None = None


@router.get("")
async def list_attempts(services: ServicesDep, actor: ReadUsage, wanted: Annotated[Wanted, Query()]) -> UsagePage:
    """The operator sees every organization."""
    owner, limit, after = None if actor.is_operator else actor.organization_id, wanted.limit, wanted.after
    chosen = Filter(
        wanted.start,
        wanted.end,
        wanted.key_id,
        wanted.model,
        owner,
        alias=wanted.alias,
        shadow=wanted.shadow,
        byok=wanted.byok,
    )
    async with services.database.read() as connection:
        rows = await usage.page(connection, chosen, limit + 1, _cursor(after))
        if rows is None:
            raise InvalidRequest(f"after: there is no attempt {after!r}.", param="after")
        sums = await usage.totals(connection, chosen)
    data = [_attempt(row, actor.is_operator) for row in rows[:limit]]
    last_id = data[-1].id if data else None
    return UsagePage(data=data, has_more=len(rows) > limit, last_id=last_id, totals=_totals(sums, actor.is_operator))


def _cursor(after: str | None) -> tuple[str, int] | None:
    if after is None:
        return None
    request_id, _, attempt = after.rpartition(":")
    if not request_id or not (attempt.isascii() and attempt.isdigit() and len(attempt) < 10):
        raise InvalidRequest("after: must be the id of an attempt, as in 'last_id' of a page.", param="after")
    return request_id, int(attempt)


def _attempt(row: Mapping[str, Any], costs: bool) -> Attempt:
    tokens = {name: row[name] for name in Tokens.model_fields}
    derived = {"id", "object", "opened_at", "settled_at", "outcome", "usage", "estimated", "charge_usd"}
    derived |= {"reported", "counted", "cost", "cost_price", "residency", "guardrails"}
    return Attempt(
        id=f"{row['request_id']}:{row['attempt']}",
        opened_at=row["opened_ns"] // 1_000_000_000,
        settled_at=None if row["settled_ns"] is None else row["settled_ns"] // 1_000_000_000,
        outcome=row["outcome"] or "open",
        usage=Tokens(**tokens),
        estimated=bool(row["estimated"]),
        residency=row["residency"] or None,
        guardrails=row["guardrails"] or None,
        charge_usd=nano_to_usd(row["charge"]),
        cost=row["cost"] if costs else None,
        cost_price=row["cost_price"] if costs else None,
        reported=_tokens(row["reported"]),
        counted=_tokens(row["counted"]),
        **{name: row[name] for name in Attempt.model_fields if name not in derived},
    )


def _tokens(text: str | None) -> Tokens | None:
    return None if text is None else Tokens.model_validate_json(text)


def _totals(sums: Iterable[Mapping[str, Any]], costs: bool) -> Totals:
    sums = list(sums)
    total = {name: sum(int(row[name]) for row in sums) for name in usage.COUNTS}
    charge, cost = total.pop("charge"), total.pop("cost")
    return Totals(
        attempts=sum(row["attempts"] for row in sums),
        outcomes={row["outcome"] or "open": row["attempts"] for row in sums},
        usage=Tokens(**total),
        charge=charge,
        charge_usd=nano_to_usd(charge),
        cost=cost if costs else None,
    )
