"""Wire types of text completions: only what we read. Unknown members pass through untouched."""

from typing import Annotated

import msgspec
from msgspec import Meta

from tokenworks.protocols.openai_chat.types import (
    Count,
    Name,
    Penalty,
    Probability,
    StreamOptions,
    Temperature,
    TokenLogprob,
    UsageBody,
)

Tokens = list[Annotated[int, Meta(ge=0)]]


class CompletionRequest(msgspec.Struct):
    model: Name
    prompt: str | list[str | Tokens | int]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: int | None = None
    min_p: Probability | None = None
    typical_p: Probability | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    logprobs: bool | Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    service_tier: str | None = None
    perf_metrics_in_response: bool | None = None
    prompt_cache_isolation_key: str | None = None
    cache_salt: str | None = None
    """The same, as vLLM calls it."""


class Logprobs(msgspec.Struct):
    """The protocol's own shape, or (`content`) that of chat, which some hosts send."""

    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None
    content: list[TokenLogprob] | None = None


class Choice(msgspec.Struct):
    text: str | None = None
    index: int = 0
    finish_reason: str | None = None
    logprobs: msgspec.Raw = msgspec.Raw()


class Answer(msgspec.Struct):
    """A chunk of a stream, or a whole answer."""

    id: str | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: UsageBody | None = None
    timings: msgspec.Raw = msgspec.Raw()
    """Where an engine of ours tells how long it took."""
    error: msgspec.Raw = msgspec.Raw()
