"""Wire types of Messages: only what we read. Unknown members pass through untouched."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[int, Meta(ge=0)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(min_length=1)]

# Requests.


class Tagged(msgspec.Struct):
    """What kind of content or tool it is, before it is read as that."""

    type: str


class CacheControl(msgspec.Struct):
    type: Literal["ephemeral"] = "ephemeral"
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(msgspec.Struct):
    text: str
    cache_control: CacheControl | None = None


class Source(msgspec.Struct):
    """Of an image: base64 with `media_type` and `data`, or a `url`. Other types are content that only we know."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class ImageBlock(msgspec.Struct):
    source: Source
    cache_control: CacheControl | None = None


class ToolUseBlock(msgspec.Struct):
    """`input` stays the text that the model wrote."""

    id: Name
    name: Name
    input: msgspec.Raw
    cache_control: CacheControl | None = None


Content = str | list[msgspec.Raw]
"""Blocks stay raw here: kinds that only this protocol knows pass through."""


class ToolResultBlock(msgspec.Struct):
    tool_use_id: Name
    content: Content | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


class ThinkingBlock(msgspec.Struct):
    thinking: str
    signature: str | None = None


class RedactedThinkingBlock(msgspec.Struct):
    data: str


class InputMessage(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: Content


class ToolKind(msgspec.Struct):
    type: str | None = None


class CustomTool(msgspec.Struct):
    name: Name
    input_schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None


class ToolChoice(msgspec.Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(msgspec.Struct):
    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: Count | None = None


class JsonSchemaFormat(msgspec.Struct):
    schema: dict[str, Any]
    type: Literal["json_schema"] = "json_schema"


class OutputConfig(msgspec.Struct):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonSchemaFormat | None = None
    task_budget: msgspec.Raw = msgspec.Raw()


class Metadata(msgspec.Struct):
    user_id: str | None = None


class MessagesRequest(msgspec.Struct):
    """`output_format` is what earlier versions called `output_config.format`."""

    model: Name
    messages: Annotated[list[InputMessage], Meta(min_length=1)]
    max_tokens: Count | None = None
    system: Content | None = None
    stream: bool | None = None
    stop_sequences: list[Name] | None = None
    temperature: Probability | None = None
    top_p: Probability | None = None
    top_k: NonNegative | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: JsonSchemaFormat | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None


# Answers and streams.


class OutputDetails(msgspec.Struct):
    thinking_tokens: int | None = None


class CacheCreation(msgspec.Struct):
    """What was written to the cache, by how long it is kept."""

    ephemeral_5m_input_tokens: int | None = None
    ephemeral_1h_input_tokens: int | None = None


class UsageBody(msgspec.Struct):
    """Null or absent on a later event: as it was."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: CacheCreation | None = None
    output_tokens: int | None = None
    output_tokens_details: OutputDetails | None = None
    service_tier: str | None = None


class Block(msgspec.Struct):
    """A block of an answer, of any kind."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw()


class Answer(msgspec.Struct):
    """A whole answer, or the empty one that begins a stream."""

    content: list[Block]
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: UsageBody | None = None


class Delta(msgspec.Struct):
    """Of a block, or at the end of the message."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class ErrorBody(msgspec.Struct):
    type: str = "api_error"
    message: str = ""


class StreamEvent(msgspec.Struct):
    type: str
    index: int = 0
    message: Answer | None = None
    content_block: Block | None = None
    delta: Delta | None = None
    usage: UsageBody | None = None
    error: ErrorBody | None = None


class PassingDelta(msgspec.Struct):
    type: str = ""
    stop_reason: str | None = None
    text: str = ""
    thinking: str = ""
    partial_json: str = ""


class PassingMessage(msgspec.Struct):
    model: str | None = None
    usage: UsageBody | None = None


class PassingEvent(msgspec.Struct):
    """What a relay looks at."""

    type: str
    index: int = 0
    message: PassingMessage | None = None
    delta: PassingDelta | None = None
    usage: UsageBody | None = None
    error: ErrorBody | None = None
