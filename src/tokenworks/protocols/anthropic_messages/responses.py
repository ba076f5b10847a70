"""Whole answers of Messages: an upstream's body -> events, and events -> the caller's body."""

from typing import Any

import msgspec

from tokenworks.core.events import (
    Event,
    Finished,
    FinishReason,
    Paused,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReport,
    WindowFull,
)
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.anthropic_messages import types as wire
from tokenworks.protocols.anthropic_messages.blocks import write_input
from tokenworks.protocols.proofs import from_claude, to_claude

_DECODER = msgspec.json.Decoder(wire.Answer)
_ENCODE = msgspec.json.Encoder().encode

_FINISH = {
    "max_tokens": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
}
_STOP = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
}


def read_finish(reason: str, stop_sequence: str | None) -> Finished:
    """An unknown reason is a host's own word for having stopped."""
    match reason:
        case "pause_turn":
            return Paused(FinishReason.STOP)
        case "model_context_window_exceeded":
            return WindowFull(FinishReason.LENGTH)
        case _:
            return Finished(_FINISH.get(reason, FinishReason.STOP), stop_sequence=stop_sequence)


def stop_reason(finished: Finished, *, called: bool) -> str:
    """`called`: whether the answer holds a tool call; some hosts end such an answer as any other."""
    match finished:
        case Paused():
            return "pause_turn"
        case WindowFull():
            return "model_context_window_exceeded"
        case Finished(reason=FinishReason.STOP, stop_sequence=str()):
            return "stop_sequence"
        case Finished(reason=FinishReason.STOP) if called:
            return "tool_use"
        case _:
            return _STOP[finished.reason]


def read_usage(body: wire.UsageBody, before: Usage | None = None) -> Usage:
    """Counts are cumulative; what a later report leaves out is as it was `before`."""
    before = before or Usage()
    details = body.output_tokens_details
    thought = details.thinking_tokens if details else None
    written = body.cache_creation
    return Usage(
        input=_newer(body.input_tokens, before.input),
        cached_input=_newer(body.cache_read_input_tokens, before.cached_input),
        cache_write=_newer(body.cache_creation_input_tokens, before.cache_write),
        output=_newer(body.output_tokens, before.output),
        reasoning=_newer(thought, before.reasoning),
        cache_write_1h=_newer(written.ephemeral_1h_input_tokens if written else None, before.cache_write_1h),
    )


def _newer(count: int | None, before: int) -> int:
    return before if count is None else count


def encode_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached_input,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write - usage.cache_write_1h,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


def empty_message(response_id: str, model: str, usage: Usage | None = None) -> dict[str, Any]:
    """With which a stream begins."""
    return {
        "id": response_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": encode_usage(usage or Usage()),
    }


def decode_answer(body: bytes) -> wire.Answer:
    """A finished answer. ValueError when it is not one."""
    try:
        answer = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if answer.stop_reason is None:
        raise ValueError("it has no stop_reason")
    return answer


def read_response(body: bytes) -> list[Event]:
    answer = decode_answer(body)
    tier = answer.usage.service_tier if answer.usage is not None else None
    events: list[Event] = [Started(answer.id or "", answer.model or "", tier)]
    calls = 0
    for block in answer.content:
        if block.type == "tool_use":
            events.append(ToolCallDelta(calls, bytes(block.input).decode() or "{}", block.id, block.name))
            calls += 1
        else:
            events += read_block(block)
    if answer.usage is not None:
        events.append(UsageReport(read_usage(answer.usage)))
    events.append(read_finish(answer.stop_reason or "", answer.stop_sequence))
    return events


def read_block(block: wire.Block) -> list[Event]:
    """Of a whole answer, or what the beginning of a streamed block already says. Kinds that only this protocol knows
    come of tools that only it has: no other protocol's caller can have asked for them."""
    match block.type:
        case "text" if block.text:
            return [TextDelta(block.text)]
        case "thinking" if block.thinking or block.signature:
            return [ReasoningDelta(block.thinking or "", signature=block.signature or None)]
        case "redacted_thinking" if block.data:
            return [ReasoningDelta("", encrypted=from_claude(block.data))]
        case _:
            return []


class Fold:
    """Events -> the blocks of one answer, in the order in which each began. Choices beyond the first have no place."""

    def __init__(self, request: Request, response_id: str) -> None:
        self.model = request.model
        self._id = response_id
        self.usage = Usage()
        self.finish = Finished(FinishReason.STOP)
        self._blocks: list[dict[str, Any]] = []
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, event: Event) -> None:
        match event:
            case Started():
                self.model = event.model or self.model
            case UsageReport():
                self.usage = event.usage
            case TextDelta(index=0) if event.text:
                self._last("text", {"text": []})["text"].append(event.text)
            case ReasoningDelta(index=0):
                self._reason(event)
            case ToolCallDelta(index=0):
                self._call(event)
            case Finished(index=0):
                self.finish = event

    def _last(self, kind: str, empty: dict[str, Any]) -> dict[str, Any]:
        """The last block when it is of this kind and open, or a new one."""
        if not self._blocks or self._blocks[-1]["type"] != kind or self._blocks[-1].get("signature"):
            self._blocks.append({"type": kind, **empty})
        return self._blocks[-1]

    def _reason(self, event: ReasoningDelta) -> None:
        if event.text or event.signature:
            block = self._last("thinking", {"thinking": [], "signature": ""})
            block["thinking"].append(event.text)
            block["signature"] = event.signature or ""
        if event.encrypted:
            self._blocks.append({"type": "redacted_thinking", "data": to_claude(event.encrypted)})

    def _call(self, event: ToolCallDelta) -> None:
        call = self._calls.get(event.call)
        if call is None:
            call = {"type": "tool_use", **identity(event, self._id), "input": []}
            self._calls[event.call] = call
            self._blocks.append(call)
        call["input"].append(event.arguments)

    def content(self) -> list[dict[str, Any]]:
        for block in self._blocks:
            match block["type"]:
                case "text" | "thinking" as member:
                    block[member] = "".join(block[member])
                case "tool_use":
                    block["input"] = write_input("".join(block["input"]))
        return self._blocks

    @property
    def called(self) -> bool:
        return bool(self._calls)


def identity(event: ToolCallDelta, response_id: str) -> dict[str, str]:
    """Of a call that begins. Some hosts give it no id."""
    return {"id": event.id or f"toolu_{response_id.removeprefix('msg_')}_{event.call}", "name": event.name or ""}


def encode_response(request: Request, events: list[Event], response_id: str, created: int) -> bytes:
    fold = Fold(request, response_id)
    for event in events:
        fold.add(event)
    return _ENCODE(
        {
            "id": response_id,
            "type": "message",
            "role": "assistant",
            "model": fold.model,
            "content": fold.content(),
            "stop_reason": stop_reason(fold.finish, called=fold.called),
            "stop_sequence": fold.finish.stop_sequence,
            "usage": encode_usage(fold.usage),
        }
    )
