"""Streams of chat -> events. `message-end` ends an answer: what ends without it was cut."""

import msgspec

from tokenworks.core.errors import UpstreamBroken
from tokenworks.core.events import Event, Failed, ReasoningDelta, ToolCallDelta, UsageReport
from tokenworks.protocols.chunks import ChunkReader
from tokenworks.protocols.cohere import types as wire
from tokenworks.protocols.cohere.responses import read_content, read_finish, read_usage

_EVENT = msgspec.json.Decoder(wire.StreamEvent)


class StreamReader(ChunkReader):
    _calls = 0
    _told = True
    """Whether the open call has arguments."""

    def _read(self, data: bytes) -> list[Event]:
        try:
            event = _EVENT.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(str(error)) from None
        delta = event.delta or wire.Delta()
        piece = delta.message or wire.Piece()
        match event.type:
            case "message-start":
                return self._start(event.id, "")
            case "content-start" | "content-delta" if isinstance(piece.content, wire.Content):
                return read_content(piece.content)
            case "tool-plan-delta" if piece.tool_plan:
                return [ReasoningDelta(piece.tool_plan)]
            case "tool-call-start" | "tool-call-delta" if isinstance(piece.tool_calls, wire.ToolCall):
                return self._call(event.type, piece.tool_calls)
            case "tool-call-end" if not self._told:
                self._told = True
                return [ToolCallDelta(self._calls - 1, "{}")]
            case "message-end":
                return self._end(delta)
            case _:
                return []

    def _call(self, kind: str, call: wire.ToolCall) -> list[Event]:
        arguments = call.function.arguments
        if kind == "tool-call-start":
            self._calls += 1
            self._told = bool(arguments)
            return [ToolCallDelta(self._calls - 1, arguments, call.id, call.function.name)]
        self._told = self._told or bool(arguments)
        return [ToolCallDelta(self._calls - 1, arguments)] if arguments else []

    def _end(self, delta: wire.Delta) -> list[Event]:
        if delta.error or delta.finish_reason in ("ERROR", "TIMEOUT"):
            return [Failed(UpstreamBroken(f"The upstream's model failed: {delta.error or delta.finish_reason}."))]
        usage = read_usage(delta.usage) if delta.usage is not None else None
        counted: list[Event] = [] if usage is None else [UsageReport(usage)]
        return [*counted, read_finish(delta.finish_reason or "")]
