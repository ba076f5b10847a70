"""Whole answers of chat and embed -> events."""

from typing import TypeVar

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
    Vector,
)
from tokenworks.core.usage import Usage
from tokenworks.protocols.cohere import types as wire

T = TypeVar("T")

_WHICH = msgspec.json.Decoder(wire.Which)
_CHAT = msgspec.json.Decoder(wire.Answer)
_EMBEDDED = msgspec.json.Decoder(wire.Embedded)
_FINISH = {
    "MAX_TOKENS": FinishReason.LENGTH,
    "TOOL_CALL": FinishReason.TOOL_CALLS,
    "ERROR_TOXIC": FinishReason.CONTENT_FILTER,
}


def read_finish(reason: str) -> Finished:
    if reason in ("ERROR", "TIMEOUT", "USER_CANCEL"):
        raise ValueError(f"the model failed: {reason}")
    return Finished(_FINISH.get(reason, FinishReason.STOP))


def read_usage(body: wire.Usage) -> Usage | None:
    """What is billed; the tokens beside it count Cohere's own prompt, which nobody pays for."""
    counts = body.billed_units or body.tokens
    if counts is None or counts.input_tokens is None:
        return None
    return Usage(input=int(counts.input_tokens), output=int(counts.output_tokens or 0))


def read_response(body: bytes) -> list[Event]:
    if bytes(_decoded(_WHICH, body).embeddings):
        return _embedded(_decoded(_EMBEDDED, body))
    answer = _decoded(_CHAT, body)
    events: list[Event] = [Started(answer.id, "")]
    if answer.message.tool_plan:
        events.append(ReasoningDelta(answer.message.tool_plan))
    for content in answer.message.content or ():
        events += read_content(content)
    for number, call in enumerate(answer.message.tool_calls or ()):
        events.append(ToolCallDelta(number, call.function.arguments or "{}", call.id, call.function.name))
    if answer.usage is not None and (usage := read_usage(answer.usage)):
        events.append(UsageReport(usage))
    return [*events, read_finish(answer.finish_reason)]


def read_content(content: wire.Content) -> list[Event]:
    if content.thinking:
        return [ReasoningDelta(content.thinking)]
    return [TextDelta(content.text)] if content.text else []


def _embedded(answer: wire.Embedded) -> list[Event]:
    events: list[Event] = [Started(answer.id, "")]
    events += [Vector(index, values) for index, values in enumerate(answer.embeddings.float)]
    counts = answer.meta.billed_units if answer.meta else None
    if counts is not None and counts.input_tokens is not None:
        events.append(UsageReport(Usage(input=int(counts.input_tokens))))
    return [*events, Finished(FinishReason.STOP)]


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
