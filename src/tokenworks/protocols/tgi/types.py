"""Wire types of TGI: only what we read. Unknown members pass through untouched."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tokenworks.protocols.openai_chat.types import Count, Penalty

Positive = Annotated[float, Meta(gt=0)]
Share = Annotated[float, Meta(gt=0, le=1)]


class Grammar(msgspec.Struct):
    """`value`: a JSON schema as object or text, `{name, schema}` for json_schema, or a regular expression."""

    type: Literal["json", "json_schema", "regex"]
    value: str | dict[str, Any]


class Parameters(msgspec.Struct):
    adapter_id: str | None = None
    best_of: Count | None = None
    decoder_input_details: bool | None = None
    details: bool | None = None
    do_sample: bool | None = None
    frequency_penalty: Penalty | None = None
    grammar: Grammar | None = None
    max_new_tokens: Count | None = None
    repetition_penalty: Positive | None = None
    return_full_text: bool | None = None
    seed: Annotated[int, Meta(ge=0)] | None = None
    stop: list[str] | None = None
    temperature: Positive | None = None
    top_k: Count | None = None
    top_n_tokens: Count | None = None
    top_p: Share | None = None
    truncate: Count | None = None
    typical_p: Share | None = None
    watermark: bool | None = None


class GenerateRequest(msgspec.Struct):
    inputs: Annotated[str, Meta(min_length=1)]
    parameters: Parameters | None = None
    stream: bool | None = None


class Token(msgspec.Struct):
    """A special token is no text: the end of the sequence, mostly."""

    text: str
    id: int = 0
    logprob: float | None = None
    special: bool = False


class Details(msgspec.Struct):
    """Of a whole answer, or of a stream's last chunk; servers give `input_length` only in the latter."""

    finish_reason: str
    generated_tokens: int = 0
    input_length: int | None = None
    prefill: list[msgspec.Raw] | None = None
    tokens: list[Token] | None = None
    top_tokens: list[list[Token]] | None = None


class Chunk(msgspec.Struct):
    """The last one has `generated_text`. `error` is how a stream reports its failure."""

    token: Token | None = None
    top_tokens: list[Token] | None = None
    generated_text: str | None = None
    details: Details | None = None
    error: str | None = None
    error_type: str | None = None


class Answer(msgspec.Struct):
    generated_text: str
    details: Details | None = None
