"""Frames of an answer -> neutral events. A whole answer is the same bytes read at once."""

from collections.abc import Collection

from tokenworks.core import events as core
from tokenworks.core.errors import Fault, UpstreamBroken, UpstreamTimeout
from tokenworks.core.usage import Usage
from tokenworks.protocols.worker import types as wire
from tokenworks.protocols.worker.framing import Reader


class StreamReader:
    def __init__(self, quirks: Collection[str] = ()) -> None:
        self._reader = Reader()

    def feed(self, chunk: bytes) -> list[core.Event]:
        try:
            return _events(self._reader.feed(chunk))
        except ValueError as error:
            raise UpstreamBroken(f"The worker's answer is garbled: {error}") from error

    def close(self) -> list[core.Event]:
        if self._reader.pending:
            raise UpstreamBroken("The worker's answer was cut inside a frame.")
        return []


def read_response(body: bytes) -> list[core.Event]:
    """ValueError when the body is not a complete answer."""
    reader = Reader()
    events = _events(reader.feed(body))
    if reader.pending or not any(isinstance(event, core.Finished | core.Failed) for event in events):
        raise ValueError("it was cut before its finish")
    return events


def _events(frames: list[wire.Event]) -> list[core.Event]:
    events: list[core.Event] = []
    for frame in frames:
        if isinstance(frame, wire.Tokens) and frame.gpu_ms:
            events.append(core.Working(frame.gpu_ms))
        if (event := _event(frame)) is not None:
            events.append(event)
    return events


def _event(frame: wire.Event) -> core.Event | None:
    """None for a frame without anything to say: ids whose text is still held back."""
    match frame:
        case wire.Tokens(text="", logprobs=None):
            return None
        case wire.Tokens(reasoning=True):
            return core.ReasoningDelta(frame.text, frame.index)
        case wire.Tokens():
            return core.TextDelta(frame.text, frame.index, _logprobs(frame.logprobs))
        case wire.ToolCall():
            return core.ToolCallDelta(frame.call, frame.arguments, frame.id, frame.name, frame.index)
        case wire.Vector():
            return core.Vector(frame.index, frame.values)
        case wire.Ranked():
            return core.Ranked(frame.index, frame.score)
        case wire.Finish():
            return core.Finished(core.FinishReason(frame.reason), frame.index, frame.stop_sequence)
        case wire.Usage():
            return core.UsageReport(
                Usage(
                    frame.input,
                    frame.cached_input,
                    frame.cache_write,
                    frame.output,
                    frame.reasoning,
                    gpu_ms=frame.gpu_ms,
                )
            )
        case wire.Started():
            return core.Started(frame.id, frame.model)
        case wire.Error(code=wire.OVERDUE):
            message = "The engine did not finish before the request's time was over."
            return core.Failed(UpstreamTimeout(message, code="total_timeout", fault=Fault.SLOW))
        case wire.Error():
            return core.Failed(UpstreamBroken(frame.message, upstream_status=frame.status, code=frame.code))


def _logprobs(given: tuple[wire.Logprob, ...] | None) -> list[core.TokenLogprob] | None:
    if given is None:
        return None
    return [
        core.TokenLogprob(
            token.token,
            token.logprob,
            list(token.token.encode()),
            [(text, logprob, list(text.encode())) for text, logprob in token.top],
        )
        for token in given
    ]
