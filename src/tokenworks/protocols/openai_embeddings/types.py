"""Wire types of embeddings: only what we read. Unknown members pass through untouched."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tokenworks.protocols.openai_chat.types import Count, Name

Tokens = Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1)]


class EmbeddingRequest(msgspec.Struct):
    model: Name
    input: str | Annotated[list[str | Tokens | int], Meta(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    user: str | None = None
    stream: bool | None = None


class Embedding(msgspec.Struct):
    """`embedding` is base64 of little-endian float32, or numbers."""

    embedding: str | list[float]
    index: int | None = None


class UsageBody(msgspec.Struct):
    """Some hosts count only the total; an embedding has no output, so that is its input."""

    prompt_tokens: int | None = None
    total_tokens: int | None = None


class Answer(msgspec.Struct):
    data: list[Embedding]
    model: str | None = None
    usage: UsageBody | None = None


class Skimmed(msgspec.Struct):
    """An answer that only passes by: its vectors stay raw."""

    data: list[msgspec.Raw]
    model: str | None = None
    usage: UsageBody | None = None
