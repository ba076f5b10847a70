"""Streams of the Responses API: every event names its type twice, in `event:` and in its data, and is numbered.

A stream ends with exactly one of `response.completed`, `response.incomplete` and `response.failed`; there is no [DONE].
"""

from collections.abc import Collection
from typing import Any, TypeVar

import msgspec

from tokenworks.core.errors import TokenworksError, UpstreamBroken
from tokenworks.core.events import (
    Event,
    Failed,
    ReasoningDelta,
    RefusalDelta,
    Started,
    SummaryDelta,
    TextDelta,
    ToolCallDelta,
)
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.base import Observation
from tokenworks.protocols.chunks import ChunkReader, payload
from tokenworks.protocols.openai_responses import types as wire
from tokenworks.protocols.openai_responses.errors import encode_stream_error, read_failure
from tokenworks.protocols.openai_responses.lawful import Lawful
from tokenworks.protocols.openai_responses.output import nothing
from tokenworks.protocols.openai_responses.responses import (
    ENDED,
    Fold,
    decode_item,
    decode_response,
    ending,
    failure,
    finish_reason,
    logprobs,
    one_line,
    proof,
    read_item,
    read_usage,
)
from tokenworks.protocols.openai_responses.told import read as read_told
from tokenworks.protocols.sse import Splitter
from tokenworks.protocols.translation import require_finish
from tokenworks.protocols.validation import top_level

T = TypeVar("T")

_EVENT = msgspec.json.Decoder(wire.StreamEvent)
_PASSING = msgspec.json.Decoder(wire.PassingEvent)
_ENCODE = msgspec.json.Encoder().encode

_BEGUN = frozenset({"response.created", "response.queued", "response.in_progress"})
_ENDED = frozenset({"response.completed", "response.incomplete"})
_BROKEN = frozenset({"response.failed", "response.cancelled"})
_DELTAS = {
    "response.output_text.delta": TextDelta,
    "response.refusal.delta": RefusalDelta,
    "response.reasoning_text.delta": ReasoningDelta,
    "response.reasoning.delta": ReasoningDelta,
    "response.reasoning_summary_text.delta": SummaryDelta,
    "response.function_call_arguments.delta": ToolCallDelta,
}
"""`response.reasoning.delta` is what the open specification calls `response.reasoning_text.delta`."""


class StreamReader(ChunkReader):
    """Some hosts send no deltas, or items without their beginning: what was not told yet is read from whole items."""

    def __init__(self, quirks: Collection[str] = ()) -> None:
        super().__init__(quirks)
        self._told: set[int] = set()
        self._calls: dict[int, int] = {}
        self._summaries: dict[int, int] = {}

    def _read(self, data: bytes) -> list[Event]:
        event = _decode(_EVENT, data)
        if event.type in _DELTAS:
            return self._delta(event)
        if event.type == "response.output_item.added":
            return self._added(event)
        if event.type == "response.output_item.done":
            return self._done(event)
        if event.type == "error":
            said = event.error or wire.Failure(event.code, event.message, event.param)
            return [Failed(read_failure(said))]
        if event.type in _ENDED or event.type in _BROKEN:
            return self._end(event)
        if event.type in _BEGUN and not self._started:
            response = decode_response(event.response)
            return self._start(response.id, response.model, response.service_tier)
        return []

    def _delta(self, event: wire.StreamEvent) -> list[Event]:
        if not isinstance(event.delta, str):
            raise ValueError(f"'{event.type}' without its delta")
        self._told.add(event.output_index)
        kind = _DELTAS[event.type]
        if kind is ToolCallDelta:
            return [ToolCallDelta(self._call(event.output_index), event.delta)]
        if kind is TextDelta:
            return [TextDelta(event.delta, 0, logprobs(event.logprobs))]
        if kind is SummaryDelta:
            before = self._summaries.setdefault(event.output_index, 0)
            self._summaries[event.output_index] = event.summary_index
            return [SummaryDelta(event.delta if before == event.summary_index else f"\n\n{event.delta}")]
        return [kind(event.delta)]

    def _added(self, event: wire.StreamEvent) -> list[Event]:
        item = decode_item(event.item)
        if item is None or item.type != "function_call" or event.output_index in self._calls:
            return []
        if item.arguments:
            self._told.add(event.output_index)
        return read_item(item, self._call(event.output_index))

    def _done(self, event: wire.StreamEvent) -> list[Event]:
        item, index = decode_item(event.item), event.output_index
        if item is None:
            return []
        if index in self._told:
            return proof(item)
        self._told.add(index)
        if index in self._calls:
            return [ToolCallDelta(self._calls[index], item.arguments)] if item.arguments else []
        return read_item(item, self._call(index) if item.type == "function_call" else 0)

    def _call(self, index: int) -> int:
        return self._calls.setdefault(index, len(self._calls))

    def _end(self, event: wire.StreamEvent) -> list[Event]:
        response = decode_response(event.response)
        events = self._start(response.id, response.model)
        if event.type in _BROKEN:
            return [*events, Failed(failure(response))]
        if not self._told:
            for index, raw in enumerate(response.output or ()):
                events += self._done(wire.StreamEvent(output_index=index, item=raw))
        return events + ending(response, called=bool(self._calls))


class StreamWriter:
    """Events -> stream. The terminal event waits for `close`; `fail` ends a stream that broke."""

    def __init__(self, request: Request, response_id: str, created: int) -> None:
        self._fold = Fold(request, response_id, created, self._emit)
        self._pending: list[bytes] = []
        self._sequence = 0
        self._ended = False
        self._failed = False
        """Also after `close`, whose bytes did not leave then."""

    def feed(self, event: Event) -> bytes:
        if isinstance(event, Failed):
            return self.fail(event.error)
        self._fold.add(event)
        if isinstance(event, Started):
            self._begin()
        return self._written()

    def go_on(self, raw: bytes) -> bool:
        told = read_told(raw)
        if told is None:
            return False
        self._fold.go_on(told)
        self._sequence = told.sequence + 1
        return True

    def close(self) -> bytes:
        if self._ended:
            return b""
        self._begin()
        response = self._fold.finished()
        return self._terminal(f"response.{response['status']}", response)

    def fail(self, error: TokenworksError) -> bytes:
        if self._failed:
            return b""
        self._failed = True
        self._begin()
        return self._terminal("response.failed", self._fold.failed(error))

    def _begin(self) -> None:
        if not self._sequence:
            response = self._fold.begun()
            for kind in ("response.created", "response.in_progress"):
                self._append(kind, {"response": response})

    def _terminal(self, kind: str, response: dict[str, Any]) -> bytes:
        self._ended = True
        self._append(kind, {"response": response})
        return self._written()

    def _emit(self, kind: str, members: dict[str, Any]) -> None:
        self._begin()
        self._append(kind, members)

    def _append(self, kind: str, members: dict[str, Any]) -> None:
        self._pending.append(encode_event(kind, self._sequence, members))
        self._sequence += 1

    def _written(self) -> bytes:
        written = b"".join(self._pending)
        self._pending.clear()
        return written


def encode_event(kind: str, sequence: int, members: dict[str, Any]) -> bytes:
    event = {"type": kind, "sequence_number": sequence, **members}
    return b"event: " + kind.encode() + b"\ndata: " + _ENCODE(event) + b"\n\n"


class Passthrough:
    """Forwards events as they came and watches them.

    The terminal event is held back until the attempt is settled. An event in any other dress than an `event:` and a
    `data:` line is put into it, and a stream that clients cannot read is made one that they can (lawful.py). `final` is
    the response object that the caller was given: under our own id, once `rename` was called, and saying of storage and
    chain what the caller asked of us.
    """

    def __init__(self, request: Request, observation: Observation) -> None:
        self.observation = observation
        self.final = b""
        self._ours: dict[str, Any] = {}
        self._options = request.options
        self._splitter = Splitter()
        self._response = b""
        self._terminal = b""
        self._lawful = Lawful(lambda: Fold(request, str(self._ours.get("id", "resp_")), 0, nothing).begun())

    def rename(self, response_id: str) -> None:
        self._ours = {
            "id": response_id,
            "store": self._options.get("store", True),
            "background": self._options.get("background", False),
            "previous_response_id": self._options.get("previous_response_id"),
        }

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
        return self._terminal

    def whole(self, body: bytes) -> bytes:
        try:
            body = self._renamed(body)
            self._note(body)
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's answer is not valid: {error}") from error
        require_finish(self.observation)
        self.observation.deltas += 1
        return body

    def fail(self, error: TokenworksError) -> bytes:
        """The response that the upstream began, failed."""
        if not self._response:
            return encode_stream_error(error)
        failed = {"code": error.code, "message": error.message}
        response = {**top_level(bytes(one_line(self._response))), "status": "failed", "error": failed}
        return encode_event("response.failed", self._lawful.sequence + 1, {"response": response})

    def _forward(self, block: bytes) -> bytes:
        data = payload(block)
        if data is None:
            return b""
        event = _decode(_PASSING, data)
        if self._ours and (event.type in _BEGUN or event.type in _ENDED):
            event.response = msgspec.Raw(self._renamed(bytes(event.response)))
            data = _ENCODE(top_level(data) | {"response": event.response})
        if event.type in _DELTAS:
            self.observation.deltas += 1
            self.observation.size += max(len(bytes(event.delta)) - 2, 0)
        elif event.type in _BROKEN:
            raise failure(decode_response(event.response))
        elif event.type == "error":
            whole = _decode(_EVENT, data)
            raise read_failure(whole.error or wire.Failure(whole.code, whole.message, whole.param))
        try:
            passed = self._lawful.see(event, data)
        except (msgspec.MsgspecError, AttributeError, TypeError) as error:
            raise ValueError(str(error)) from None
        return b"".join([self._dressed(kind, each, block if each is data else b"") for kind, each in passed])

    def _dressed(self, kind: str, data: bytes, block: bytes) -> bytes:
        """`block` is how it came, if it did."""
        name = kind.encode()
        if len(block) != len(name) + len(data) + 14 or not block.startswith(b"event: "):
            block = b"event: " + name + b"\ndata: " + data.replace(b"\n", b" ")
        if kind in _BEGUN:
            self._response = bytes(_decode(_PASSING, data).response)
            self.observation.response_model = decode_response(self._response).model or ""
        elif kind in _ENDED:
            self._note(bytes(_decode(_PASSING, data).response))
            self._terminal = block + b"\n\n"
            return b""
        return block + b"\n\n"

    def _renamed(self, body: bytes) -> bytes:
        return _ENCODE(top_level(body) | self._ours) if self._ours else body

    def _note(self, body: bytes) -> None:
        """A finished response, whole or at the end of a stream."""
        response = decode_response(body)
        if response.status in ("failed", "cancelled"):
            raise failure(response)
        if response.status not in ENDED or response.output is None:
            raise ValueError("it is not a finished response")
        items = [decode_item(raw) for raw in response.output]
        called = any(item is not None and item.type == "function_call" for item in items)
        self.final = body
        self.observation.finish_reasons[0] = finish_reason(response, called=called)
        self.observation.response_model = response.model or self.observation.response_model
        self.observation.answered_at(response.service_tier)
        if response.usage is not None:
            self.observation.usage = read_usage(response.usage)


def _decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
