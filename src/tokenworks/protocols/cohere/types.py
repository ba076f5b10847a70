"""Wire types of Cohere's second API: only what we read."""

import msgspec


class Function(msgspec.Struct):
    name: str | None = None
    arguments: str = ""


class ToolCall(msgspec.Struct):
    function: Function = msgspec.field(default_factory=Function)
    id: str | None = None


class Content(msgspec.Struct):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None


class Message(msgspec.Struct):
    content: list[Content] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_plan: str | None = None


class Counts(msgspec.Struct):
    input_tokens: float | None = None
    output_tokens: float | None = None


class Usage(msgspec.Struct):
    billed_units: Counts | None = None
    tokens: Counts | None = None


class Answer(msgspec.Struct):
    finish_reason: str
    message: Message
    id: str = ""
    usage: Usage | None = None


class Piece(msgspec.Struct):
    """What a stream tells of the message; the shape of `content` and `tool_calls` depends on the event."""

    content: Content | list[Content] | None = None
    tool_calls: ToolCall | list[ToolCall] | None = None
    tool_plan: str | None = None


class Delta(msgspec.Struct):
    message: Piece | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    error: str | None = None


class StreamEvent(msgspec.Struct):
    type: str
    id: str | None = None
    delta: Delta | None = None
    message: str | None = None


class Vectors(msgspec.Struct):
    float: list[list[float]]


class Meta(msgspec.Struct):
    billed_units: Counts | None = None


class Embedded(msgspec.Struct):
    embeddings: Vectors
    id: str = ""
    meta: Meta | None = None


class Which(msgspec.Struct):
    """Tells an answer of embed from one of chat."""

    embeddings: msgspec.Raw = msgspec.Raw(b"")
