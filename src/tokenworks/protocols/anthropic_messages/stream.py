"""Streams of Messages, read and passed on. Every event names its type twice, in `event:` and in its data; without the
first the official client sees nothing. `message_delta` tells why an answer is over and what it took: what ends without
one was cut."""

from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

import msgspec

from tokenworks.core.errors import UpstreamBroken
from tokenworks.core.events import (
    Event,
    Failed,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.anthropic_messages import types as wire
from tokenworks.protocols.anthropic_messages.errors import read_stream_error
from tokenworks.protocols.anthropic_messages.lawful import Lawful
from tokenworks.protocols.anthropic_messages.responses import (
    decode_answer,
    empty_message,
    read_block,
    read_finish,
    read_usage,
)
from tokenworks.protocols.base import Observation
from tokenworks.protocols.chunks import ChunkReader, payload
from tokenworks.protocols.sse import Splitter
from tokenworks.protocols.translation import require_finish

T = TypeVar("T")

_EVENT = msgspec.json.Decoder(wire.StreamEvent)
_PASSING = msgspec.json.Decoder(wire.PassingEvent)
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_OUTPUT = frozenset({"text_delta", "thinking_delta", "input_json_delta"})


class StreamReader(ChunkReader):
    """Usage is told at the end only: what the beginning says of the output is not what will be billed."""

    def __init__(self, quirks: Collection[str] = ()) -> None:
        super().__init__(quirks)
        self._counted: Usage | None = None
        self._finish: Finished | None = None
        self._calls = 0
        self._open: wire.Block | None = None
        self._told = False

    def _read(self, data: bytes) -> list[Event]:
        event = _decode(_EVENT, data)
        match event.type:
            case "content_block_delta" if event.delta is not None:
                return self._delta(event.delta)
            case "content_block_start" if event.content_block is not None:
                return self._begin(event.content_block)
            case "content_block_stop":
                return self._end()
            case "message_start" if event.message is not None:
                self._count(event.message.usage)
                tier = event.message.usage.service_tier if event.message.usage is not None else None
                begun = self._start(event.message.id, event.message.model, tier)
                for started in begun:
                    if isinstance(started, Started) and self._counted is not None:
                        started.prompt = replace(self._counted, output=0, reasoning=0)
                return begun
            case "message_delta":
                return self._finished(event)
            case "message_stop" if self._finish is None:
                return [Finished(FinishReason.STOP)]
            case "error":
                return [Failed(read_stream_error(event.error))]
            case _:
                return []

    def _begin(self, block: wire.Block) -> list[Event]:
        self._open = block
        self._told = False
        if block.type != "tool_use":
            return read_block(block)
        self._calls += 1
        return [ToolCallDelta(self._calls - 1, "", block.id, block.name)]

    def _delta(self, delta: wire.Delta) -> list[Event]:
        match delta.type:
            case "text_delta":
                return [TextDelta(delta.text)]
            case "thinking_delta":
                return [ReasoningDelta(delta.thinking)]
            case "signature_delta" if delta.signature:
                return [ReasoningDelta("", signature=delta.signature)]
            case "input_json_delta" if delta.partial_json and self._open is not None and self._open.type == "tool_use":
                self._told = True
                return [ToolCallDelta(self._calls - 1, delta.partial_json)]
            case _:
                return []

    def _end(self) -> list[Event]:
        """A call whose arguments no delta told has them in its beginning, mostly as an empty object."""
        block, self._open = self._open, None
        if block is None or block.type != "tool_use" or self._told:
            return []
        return [ToolCallDelta(self._calls - 1, bytes(block.input).decode() or "{}")]

    def _finished(self, event: wire.StreamEvent) -> list[Event]:
        self._count(event.usage)
        events: list[Event] = [] if self._counted is None else [UsageReport(self._counted)]
        if event.delta is not None and event.delta.stop_reason is not None and self._finish is None:
            self._finish = read_finish(event.delta.stop_reason, event.delta.stop_sequence)
            events.append(self._finish)
        return events

    def _count(self, usage: wire.UsageBody | None) -> None:
        if usage is not None:
            self._counted = read_usage(usage, self._counted)


class Passthrough:
    """Forwards events as they came and watches them.

    `message_stop` is held back until the attempt is settled. An event in any other dress than an `event:` and a
    `data:` line is put into it, and a stream that clients cannot read is made one that they can (lawful.py).
    """

    def __init__(self, request: Request, observation: Observation) -> None:
        self.observation = observation
        self._splitter = Splitter()
        self._counted: Usage | None = None
        self._terminal = _STOP
        self._lawful = Lawful(empty_message("msg_", request.model))

    def feed(self, chunk: bytes) -> bytes:
        try:
            return b"".join([self._forward(block) for block in self._splitter.feed(chunk)])
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's stream is garbled: {error}") from error

    def close(self) -> bytes:
        try:
            tail = b"".join([self._forward(block) for block in self._splitter.close()])
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's stream was cut: {error}") from error
        require_finish(self.observation)
        return tail + self._terminal

    def conclude(self, usage: Usage, note: str) -> bytes:
        return b": " + note.encode() + b"\n\n" + self._terminal

    def whole(self, body: bytes) -> bytes:
        try:
            answer = decode_answer(body)
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's answer is not valid: {error}") from error
        seen = self.observation
        seen.deltas += 1
        seen.response_model = answer.model or ""
        seen.finish_reasons[0] = read_finish(answer.stop_reason or "", None).reason
        if answer.usage is not None:
            seen.usage = read_usage(answer.usage)
            seen.answered_at(answer.usage.service_tier)
        return body

    def _forward(self, block: bytes) -> bytes:
        data = payload(block)
        if data is None:
            return b""
        event = _decode(_PASSING, data)
        self._see(event)
        try:
            passed = self._lawful.see(event, data)
        except (msgspec.MsgspecError, AttributeError, TypeError) as error:
            raise ValueError(str(error)) from None
        blocks = [_dressed(kind, each, block if each is data else b"") for kind, each in passed]
        if event.type == "message_stop":
            self._terminal = b"".join(blocks)
            return b""
        return b"".join(blocks)

    def _see(self, event: wire.PassingEvent) -> None:
        seen = self.observation
        match event.type:
            case "content_block_delta":
                if event.delta is not None and event.delta.type in _OUTPUT:
                    seen.deltas += 1
                    seen.size += len(event.delta.text) + len(event.delta.thinking) + len(event.delta.partial_json)
            case "message_start" if event.message is not None:
                seen.response_model = event.message.model or ""
                if event.message.usage is not None:
                    self._counted = read_usage(event.message.usage)
                    seen.prompt = replace(self._counted, output=0, reasoning=0)
                    seen.answered_at(event.message.usage.service_tier)
            case "message_delta":
                if event.delta is not None and event.delta.stop_reason is not None:
                    seen.finish_reasons[0] = read_finish(event.delta.stop_reason, None).reason
                if event.usage is not None:
                    seen.usage = self._counted = read_usage(event.usage, self._counted)
            case "message_stop":
                seen.finish_reasons.setdefault(0, FinishReason.STOP)
            case "error":
                raise read_stream_error(event.error)


def _dressed(kind: str, data: bytes, block: bytes) -> bytes:
    """`block` is how it came, if it did."""
    name = kind.encode()
    if len(block) != len(name) + len(data) + 14 or not block.startswith(b"event: "):
        block = b"event: " + name + b"\ndata: " + data.replace(b"\n", b" ")
    return block + b"\n\n"


def _decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
