"""A conversation in neutral form: what every chat protocol can say, under the field's standard names."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(slots=True)
class Text:
    """`cache_ttl` ("5m", "1h") asks for the prompt up to here to be cached, as Anthropic's cache_control does."""

    text: str
    cache_ttl: str | None = None


@dataclass(slots=True)
class Refusal(Text):
    """Text with which the model refused; a protocol without refusals shows it as text."""


@dataclass(slots=True)
class Image:
    """Exactly one of `url` and `data` (base64, with its `media_type`) is set. `where` names it in the caller's body."""

    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    detail: str | None = None
    cache_ttl: str | None = None
    where: str = field(default="messages", compare=False, repr=False)


@dataclass(slots=True)
class ToolCall:
    """`arguments` is the JSON text as the model wrote it: never parsed and re-serialised on its way."""

    id: str
    name: str
    arguments: str
    cache_ttl: str | None = None


@dataclass(slots=True)
class ToolResult:
    call_id: str
    content: list["Text | Image | Foreign"]
    is_error: bool = False
    cache_ttl: str | None = None


@dataclass(slots=True)
class Thinking:
    """Reasoning the model showed. `signature` or `encrypted` is the provider's own proof and passes unchanged.

    Where only a summary was shown, `text` is that summary, and `summary` holds its parts. `id` is the provider's.
    """

    text: str = ""
    signature: str | None = None
    encrypted: str | None = None
    summary: list[str] = field(default_factory=list)
    id: str | None = None


@dataclass(slots=True)
class Foreign:
    """Content that only its own protocol knows (a file, audio, a search result): `raw` is its JSON as it came.

    It passes unchanged to an upstream of the same protocol; any other codec refuses it by its `type`.
    `images` and `audio_ms` are what of it is sold beside tokens: pictures, milliseconds of sound.
    """

    protocol: str
    type: str
    raw: bytes
    images: int = 0
    audio_ms: int = 0


Part = Text | Image | ToolCall | ToolResult | Thinking | Foreign


@dataclass(slots=True)
class Message:
    """`phase` is the provider's own word for what part of a turn it is (commentary, final_answer)."""

    role: Role
    parts: list[Part]
    name: str | None = None
    phase: str | None = None


@dataclass(slots=True)
class Tool:
    """A function the model may call; `parameters` is its JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    strict: bool | None = None
    cache_ttl: str | None = None


class ToolMode(StrEnum):
    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`name` forces that one function and implies REQUIRED."""

    mode: ToolMode = ToolMode.AUTO
    name: str | None = None
