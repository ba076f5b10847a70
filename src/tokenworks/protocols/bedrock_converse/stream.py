"""Streams of ConverseStream -> events. `messageStop` says why it stopped, `metadata` counts and ends it."""

from collections.abc import Collection

import msgspec

from tokenworks.core.errors import UpstreamBroken
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
from tokenworks.protocols.bedrock_converse import types as wire
from tokenworks.protocols.bedrock_converse.errors import read_exception
from tokenworks.protocols.bedrock_converse.frames import Frames, Message
from tokenworks.protocols.bedrock_converse.responses import read_finish, read_usage
from tokenworks.protocols.proofs import from_claude

_EVENT = msgspec.json.Decoder(wire.StreamEvent)


class StreamReader:
    """The finish is told after the usage, whatever stands between, and only when both have come or the stream ended
    between two messages."""

    def __init__(self, quirks: Collection[str] = ()) -> None:
        self._frames = Frames()
        self._finish: Finished | None = None
        self._calls = 0
        self._empty_call = False

    def feed(self, chunk: bytes) -> list[Event]:
        try:
            return [event for message in self._frames.feed(chunk) for event in self._read(message)]
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's stream is garbled: {error}") from error

    def close(self) -> list[Event]:
        try:
            self._frames.close()
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's stream was cut: {error}") from error
        return self._ended()

    def _ended(self) -> list[Event]:
        finish, self._finish = self._finish, None
        return [] if finish is None else [finish]

    def _read(self, message: Message) -> list[Event]:
        headers, payload = message
        if headers.get(":message-type", "event") != "event":
            return [Failed(read_exception(headers, payload))]
        try:
            event = _EVENT.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        match headers.get(":event-type"):
            case "messageStart":
                return [Started("", "")]
            case "contentBlockStart" if event.start is not None and event.start.tool_use is not None:
                self._calls += 1
                self._empty_call = True
                call = event.start.tool_use
                return [ToolCallDelta(self._calls - 1, "", call.tool_use_id, call.name)]
            case "contentBlockDelta" if event.delta is not None:
                return self._delta(event.delta)
            case "contentBlockStop" if self._empty_call:
                self._empty_call = False
                return [ToolCallDelta(self._calls - 1, "{}")]
            case "messageStop" if event.stop_reason is not None:
                self._finish = read_finish(event.stop_reason)
                return []
            case "metadata":
                usage: list[Event] = [] if event.usage is None else [UsageReport(read_usage(event.usage))]
                return usage + self._ended()
            case _:
                return []

    def _delta(self, delta: wire.Delta) -> list[Event]:
        if delta.text:
            return [TextDelta(delta.text)]
        if delta.tool_use is not None and delta.tool_use.input:
            self._empty_call = False
            return [ToolCallDelta(self._calls - 1, delta.tool_use.input)]
        thought = delta.reasoning_content
        if thought is None:
            return []
        if thought.redacted_content:
            return [ReasoningDelta("", encrypted=from_claude(thought.redacted_content))]
        if thought.text or thought.signature:
            return [ReasoningDelta(thought.text or "", signature=thought.signature or None)]
        return []
