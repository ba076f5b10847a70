"""Wire types of rerank: only what we read. Unknown members pass through untouched."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tokenworks.protocols.openai_chat.types import Count, Name


class RerankRequest(msgspec.Struct):
    """A document is text or an object with texts in it; `rank_fields` names those that matter."""

    model: Name
    query: str
    documents: Annotated[list[str | dict[str, Any]], Meta(min_length=1)]
    top_n: Count | None = None
    return_documents: bool | None = None
    rank_fields: list[str] | None = None
    stream: bool | None = None


class Result(msgspec.Struct):
    index: int
    relevance_score: float


class UsageBody(msgspec.Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class Tokens(msgspec.Struct):
    input_tokens: float | None = None


class Counts(msgspec.Struct):
    tokens: Tokens | None = None
    billed_units: Tokens | None = None


class Answer(msgspec.Struct):
    """`data` is what one host calls its `results`; `meta` is where another counts."""

    results: list[Result] | None = None
    data: list[Result] | None = None
    id: str | None = None
    model: str | None = None
    usage: UsageBody | None = None
    meta: Counts | None = None
