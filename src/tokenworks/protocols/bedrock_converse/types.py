"""Wire types of Converse: only what we read."""

from typing import Any

import msgspec


class ToolUse(msgspec.Struct, rename="camel"):
    name: str
    tool_use_id: str
    input: msgspec.Raw = msgspec.Raw(b"{}")


class ReasoningText(msgspec.Struct):
    text: str = ""
    signature: str | None = None


class Reasoning(msgspec.Struct, rename="camel"):
    """`redacted_content` is base64."""

    reasoning_text: ReasoningText | None = None
    redacted_content: str | None = None


class Block(msgspec.Struct, rename="camel"):
    """Exactly one member is set; a kind we do not read comes of tools that only this host has."""

    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: Reasoning | None = None


class Message(msgspec.Struct):
    content: list[Block]


class Output(msgspec.Struct):
    message: Message


class CacheDetail(msgspec.Struct, rename="camel"):
    input_tokens: int = 0
    ttl: str = ""


class Usage(msgspec.Struct, rename="camel"):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_details: list[CacheDetail] | None = None


class Tier(msgspec.Struct):
    type: str | None = None


class Answer(msgspec.Struct, rename="camel"):
    output: Output
    stop_reason: str
    usage: Usage | None = None
    service_tier: Tier | None = None


class ToolInput(msgspec.Struct):
    input: str = ""


class ReasoningDelta(msgspec.Struct, rename="camel"):
    text: str | None = None
    signature: str | None = None
    redacted_content: str | None = None


class Delta(msgspec.Struct, rename="camel"):
    text: str | None = None
    tool_use: ToolInput | None = None
    reasoning_content: ReasoningDelta | None = None


class Start(msgspec.Struct, rename="camel"):
    tool_use: ToolUse | None = None


class StreamEvent(msgspec.Struct, rename="camel"):
    """The payload of any event of a stream."""

    content_block_index: int = 0
    start: Start | None = None
    delta: Delta | None = None
    stop_reason: str | None = None
    usage: Usage | None = None
    service_tier: Tier | None = None


class Problem(msgspec.Struct):
    message: str = ""
    Message: str = ""


Members = dict[str, Any]
