"""Streams of chat completions. Rules measured with the official clients: only `data:` lines and comments, every
chunk has id, object, created, model and a list of choices, usage comes last and only when asked for."""

from collections.abc import Collection
from typing import Any

import msgspec

from tokenworks.core.events import (
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.base import Observation
from tokenworks.protocols.chunks import DONE, ChunkReader, ChunkRelay
from tokenworks.protocols.openai_chat import types as wire
from tokenworks.protocols.openai_chat.calls import Numbers
from tokenworks.protocols.openai_chat.errors import read_stream_error
from tokenworks.protocols.openai_chat.reasoning import NAME as DETAILS
from tokenworks.protocols.openai_chat.reasoning import Details, Thoughts
from tokenworks.protocols.openai_chat.responses import (
    DEFAULT_TIER,
    content_of,
    decode_answer,
    encode_logprobs,
    encode_usage,
    finish_reason,
    read_choice,
    read_usage,
    usage_chunk,
)
from tokenworks.protocols.openai_chat.shape import OBJECT, Shape
from tokenworks.protocols.validation import present

_ENCODE = msgspec.json.Encoder().encode


class StreamReader(ChunkReader):
    def __init__(self, quirks: Collection[str] = ()) -> None:
        super().__init__(quirks)
        self._numbers = Numbers()
        self._thoughts = Thoughts()

    def _read(self, data: bytes) -> list[Event]:
        answer = decode_answer(data)
        if present(answer.error):
            return [Failed(read_stream_error(bytes(answer.error)))]
        if not answer.choices and not answer.id and not answer.model and answer.usage is None:
            return []  # what was found in the prompt, before the answer begins
        events = self._start(answer.id, answer.model, answer.service_tier)
        for position, choice in enumerate(answer.choices or ()):
            events += read_choice(choice, position, self._numbers, self._thoughts)
        if answer.usage is not None:
            events.append(self._report(read_usage(answer.usage, answer.timings)))
        return events


class StreamWriter:
    """Events -> chunks. The usage chunk is held until the end, where every client expects it."""

    def __init__(self, request: Request, response_id: str, created: int) -> None:
        self._head: dict[str, Any] = {
            "id": response_id,
            "object": OBJECT,
            "created": created,
            "model": request.model,
        }
        if request.service_tier is not None:
            self._head["service_tier"] = DEFAULT_TIER
        self._include_usage = request.include_usage
        self._usage = Usage()
        self._roles: set[int] = set()
        self._details: dict[int, Details] = {}

    def feed(self, event: Event) -> bytes:
        match event:
            case RefusalDelta():
                return self._chunk(event.index, {"refusal": event.text})
            case TextDelta():
                return self._chunk(event.index, {"content": event.text}, logprobs=encode_logprobs(event.logprobs))
            case ReasoningDelta():
                return self._chunk(event.index, self._thought(event))
            case ToolCallDelta():
                return self._chunk(event.index, {"tool_calls": [_encode_call(event)]})
            case Finished():
                return self._chunk(event.index, {}, finish=event.reason.value)
            case UsageReport():
                self._usage = event.usage
            case Started():
                self._head["model"] = event.model or self._head["model"]
                if event.service_tier is not None and "service_tier" in self._head:
                    self._head["service_tier"] = event.service_tier
        return b""

    def close(self) -> bytes:
        if not self._include_usage:
            return DONE
        last = self._head | {"choices": [], "usage": encode_usage(self._usage)}
        return b"data: " + _ENCODE(last) + b"\n\n" + DONE

    def _thought(self, event: ReasoningDelta) -> dict[str, Any]:
        details = self._details.setdefault(event.index, Details()).of(event)
        text = {"reasoning_content": event.text, "reasoning": event.text} if event.text or not details else {}
        return {**text, DETAILS: details} if details else text

    def _chunk(
        self, index: int, delta: dict[str, Any], *, finish: str | None = None, logprobs: dict[str, Any] | None = None
    ) -> bytes:
        before = b""
        if index not in self._roles:
            # The official helper takes choices for the places at which they begin.
            missing = [lower for lower in range(index) if lower not in self._roles]
            before = b"".join([self._chunk(lower, {"content": ""}) for lower in missing])
            self._roles.add(index)
            delta = {"role": "assistant", **delta}
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return before + b"data: " + _ENCODE(self._head | {"choices": [choice]}) + b"\n\n"


def _encode_call(event: ToolCallDelta) -> dict[str, Any]:
    call: dict[str, Any] = {"index": event.call, "function": {"arguments": event.arguments}}
    if event.id is not None:
        call |= {"id": event.id, "type": "function"}
        call["function"] = {"name": event.name, "arguments": event.arguments}
    return call


def _size(delta: wire.Delta) -> int:
    """Characters of output."""
    content = delta.content
    if isinstance(content, list):
        text, thought = content_of(content)
        content = text + thought
    thinking = delta.reasoning_content or delta.reasoning or ""
    calls = sum(len(call.function.arguments or "") for call in delta.tool_calls or () if call.function is not None)
    return len(content or "") + len(thinking) + calls


class Passthrough(ChunkRelay):
    def __init__(self, request: Request, observation: Observation) -> None:
        super().__init__(request, observation)
        self._shape = Shape()

    def _see(self, data: bytes) -> bytes | None:
        answer = decode_answer(data)
        if present(answer.error):
            raise read_stream_error(bytes(answer.error))
        self._note(answer)
        if answer.choices or answer.usage is None or self._include_usage:
            return self._shape.of(data, answer)
        return None

    def _report(self, usage: Usage) -> bytes:
        return usage_chunk(self._chunk, usage)

    def _see_whole(self, body: bytes) -> None:
        answer = decode_answer(body)
        if not answer.choices:
            raise ValueError("it has no choices")
        self._note(answer)

    def _note(self, answer: wire.Answer) -> None:
        seen = self.observation
        for position, choice in enumerate(answer.choices or ()):
            delta = choice.delta or choice.message
            if delta is not None and (delta.content or delta.reasoning_content or delta.reasoning or delta.tool_calls):
                seen.deltas += 1
                seen.size += _size(delta)
            if choice.finish_reason:
                index = position if choice.index is None else choice.index
                seen.finish_reasons[index] = finish_reason(choice.finish_reason)
        if answer.usage is not None:
            seen.usage = read_usage(answer.usage, answer.timings)
        if answer.model:
            seen.response_model = answer.model
        seen.answered_at(answer.service_tier)
