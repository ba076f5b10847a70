"""Whole answers of Converse -> events."""

import msgspec

from tokenworks.core.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReport,
    WindowFull,
)
from tokenworks.core.usage import Usage
from tokenworks.protocols.bedrock_converse import types as wire
from tokenworks.protocols.proofs import from_claude

_DECODER = msgspec.json.Decoder(wire.Answer)
_FINISH = {
    "max_tokens": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "guardrail_intervened": FinishReason.CONTENT_FILTER,
    "content_filtered": FinishReason.CONTENT_FILTER,
}


def read_finish(reason: str) -> Finished:
    """An unknown reason is a word for having stopped."""
    if reason == "model_context_window_exceeded":
        return WindowFull(FinishReason.LENGTH)
    if reason in ("malformed_model_output", "malformed_tool_use"):
        raise ValueError(f"the model failed: {reason}")
    return Finished(_FINISH.get(reason, FinishReason.STOP))


def read_usage(body: wire.Usage) -> Usage:
    """Input excludes what a cache knew or took, as it does here."""
    hour = sum(detail.input_tokens for detail in body.cache_details or () if detail.ttl == "1h")
    return Usage(
        input=body.input_tokens,
        cached_input=body.cache_read_input_tokens or 0,
        cache_write=body.cache_write_input_tokens or 0,
        output=body.output_tokens,
        cache_write_1h=hour,
    )


def read_response(body: bytes) -> list[Event]:
    try:
        answer = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    events: list[Event] = [Started("", "", answer.service_tier.type if answer.service_tier else None)]
    calls = 0
    for block in answer.output.message.content:
        if block.tool_use is not None:
            call = block.tool_use
            events.append(ToolCallDelta(calls, bytes(call.input).decode(), call.tool_use_id, call.name))
            calls += 1
        elif block.text:
            events.append(TextDelta(block.text))
        elif block.reasoning_content is not None:
            events += _reasoning(block.reasoning_content)
    if answer.usage is not None:
        events.append(UsageReport(read_usage(answer.usage)))
    return [*events, read_finish(answer.stop_reason)]


def _reasoning(content: wire.Reasoning) -> list[Event]:
    if content.reasoning_text is not None:
        return [ReasoningDelta(content.reasoning_text.text, signature=content.reasoning_text.signature or None)]
    return [ReasoningDelta("", encrypted=from_claude(content.redacted_content))] if content.redacted_content else []
