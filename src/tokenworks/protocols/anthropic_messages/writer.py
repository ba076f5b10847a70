"""Events -> a stream of Messages: one block at a time, numbered in order, each with a beginning, deltas and an end.

Other protocols may tell several calls at once. Here a block that ended cannot go on, so while a call's arguments are
no whole object yet, whatever else comes waits for them.
"""

from typing import Any

import msgspec

from tokenworks.core.events import (
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.anthropic_messages.blocks import BROKEN_ARGUMENTS, is_object
from tokenworks.protocols.anthropic_messages.errors import encode_stream_error
from tokenworks.protocols.anthropic_messages.responses import empty_message, encode_usage, identity, stop_reason
from tokenworks.protocols.proofs import to_claude

_ENCODE = msgspec.json.Encoder().encode


class StreamWriter:
    """The end of the message waits for `close`: usage may come after the finish."""

    def __init__(self, request: Request, response_id: str, created: int) -> None:
        self._model = request.model
        self._id = response_id
        self._usage = Usage()
        self._finish: Finished | None = None
        self._begun = False
        self._index = -1
        self._open = ""
        """Kind of the open block."""
        self._call: _Call | None = None
        """The open call."""
        self._calls: set[int] = set()
        self._waiting: list[Event] = []

    def feed(self, event: Event) -> bytes:
        match event:
            case TextDelta(index=0) | ReasoningDelta(index=0) | ToolCallDelta(index=0):
                return self._output(event)
            case Started():
                self._model = event.model or self._model
                return self._begin()
            case UsageReport():
                self._usage = event.usage
            case Finished(index=0):
                self._finish = event
                return self._begin() + self._drain(forced=True) + self._end()
            case Failed():
                return encode_stream_error(event.error)
        return b""

    def close(self) -> bytes:
        finish = self._finish
        tail = self._begin() + self._drain(forced=True) + self._end()
        delta = {
            "stop_reason": stop_reason(finish, called=bool(self._calls)) if finish else "end_turn",
            "stop_sequence": finish.stop_sequence if finish else None,
        }
        tail += _event("message_delta", {"delta": delta, "usage": encode_usage(self._usage)})
        return tail + _event("message_stop", {})

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return _event("message_start", {"message": empty_message(self._id, self._model, self._usage)})

    def _output(self, event: Event) -> bytes:
        head = b"" if self._begun else self._begin()
        call = self._call
        if call is None:
            return head + self._write(event)
        if isinstance(event, ToolCallDelta) and event.call == call.number:
            return head + self._write(event) + (self._drain() if self._waiting else b"")
        self._waiting.append(event)
        return head + self._drain()

    def _take(self) -> list[Event]:
        """The first of what waits; of a call, all that waits of it."""
        first = self._waiting[0]
        taken = [event for event in self._waiting if event is first or _same_call(event, first)]
        self._waiting = [event for event in self._waiting if event is not first and not _same_call(event, first)]
        return taken

    def _drain(self, *, forced: bool = False) -> bytes:
        """What waited, as far as the calls before it are whole; all of it when `forced`."""
        out = b""
        while self._waiting and (self._call is None or forced or self._call.is_whole()):
            out += b"".join([self._write(event) for event in self._take()])
        return out

    def _write(self, event: Event) -> bytes:
        match event:
            case TextDelta():
                if not event.text:
                    return b""
                head = b"" if self._open == "text" else self._block("text", {"text": ""})
                return head + _delta(self._index, "text_delta", "text", event.text)
            case ReasoningDelta():
                return self._reasoning(event)
            case ToolCallDelta():
                return self._arguments(event)
            case _:
                return b""

    def _reasoning(self, event: ReasoningDelta) -> bytes:
        out = b""
        if event.text or event.signature:
            if self._open != "thinking":
                out += self._block("thinking", {"thinking": "", "signature": ""})
            if event.text:
                out += _delta(self._index, "thinking_delta", "thinking", event.text)
            if event.signature:
                out += _delta(self._index, "signature_delta", "signature", event.signature) + self._end()
        if event.encrypted:
            out += self._block("redacted_thinking", {"data": to_claude(event.encrypted)}) + self._end()
        return out

    def _arguments(self, event: ToolCallDelta) -> bytes:
        out = b""
        if self._call is None or self._call.number != event.call:
            if event.call in self._calls:
                return b""  # it was whole when its block ended: what follows a whole object says nothing
            self._calls.add(event.call)
            out = self._block("tool_use", {**identity(event, self._id), "input": {}})
            self._call = _Call(event.call)
        call = self._call
        assert call is not None  # noqa: S101 - just set
        partial = call.add(event.arguments)
        return out + (_delta(self._index, "input_json_delta", "partial_json", partial) if partial else b"")

    def _block(self, kind: str, empty: dict[str, Any]) -> bytes:
        """End the open block and begin another."""
        ended = self._end()
        self._index += 1
        self._open = kind
        block = {"type": kind, **empty}
        return ended + _event("content_block_start", {"index": self._index, "content_block": block})

    def _end(self) -> bytes:
        if not self._open:
            return b""
        tail = self._call.rest() if self._call is not None else ""
        self._open, self._call = "", None
        out = _delta(self._index, "input_json_delta", "partial_json", tail) if tail else b""
        return out + _event("content_block_stop", {"index": self._index})


class _Call:
    """The arguments of the open call. Clients parse them as they come and break on anything but an object: what does
    not begin as one is told as a text inside of one."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._pieces: list[str] = []
        self._begun = False
        self._wrapped = False

    def add(self, arguments: str) -> str:
        """What to tell of this piece."""
        if not self._begun:
            arguments = arguments.lstrip()
            if not arguments:
                return ""
            self._begun = True
            self._wrapped = not arguments.startswith("{")
            if self._wrapped:
                return f'{{"{BROKEN_ARGUMENTS}":"{_inside(arguments)}'
        if self._wrapped:
            return _inside(arguments)
        self._pieces.append(arguments)
        return arguments

    def is_whole(self) -> bool:
        if not self._pieces or not self._pieces[-1].rstrip().endswith("}"):
            return False
        whole = "".join(self._pieces)
        self._pieces = [whole]
        return is_object(whole)

    def rest(self) -> str:
        return '"}' if self._wrapped else ""


def _same_call(one: Event, other: Event) -> bool:
    return isinstance(one, ToolCallDelta) and isinstance(other, ToolCallDelta) and one.call == other.call


def _inside(text: str) -> str:
    """As a JSON string holds it, without the quotes."""
    return _ENCODE(text)[1:-1].decode()


def _event(kind: str, members: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _ENCODE({"type": kind, **members}))


def _delta(index: int, kind: str, member: str, text: str) -> bytes:
    """The hot path."""
    return (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":%b}}\n\n'
        % (index, kind.encode(), member.encode(), _ENCODE(text))
    )
