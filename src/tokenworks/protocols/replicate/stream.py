"""A prediction's stream of events. Its client skips every event that lacks `id:` or `event:` (measured)."""

from collections.abc import Collection
from itertools import count

import msgspec

from tokenworks.core.errors import TokenworksError, UpstreamBroken
from tokenworks.core.events import Event, Failed, Finished, FinishReason, ReasoningDelta, Started, TextDelta
from tokenworks.core.request import Request
from tokenworks.protocols.sse import Splitter, data_of, event_of

_ENCODE = msgspec.json.Encoder().encode


def encode_event(name: str, event_id: str, data: str) -> bytes:
    """A line end of any kind becomes LF: the format has no other."""
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "".join([f"event: {name}\nid: {event_id}\n", *[f"data: {line}\n" for line in lines], "\n"]).encode()


def encode_failure(error: TokenworksError, ids: tuple[str, str]) -> bytes:
    said = _ENCODE({"detail": error.message}).decode()
    return encode_event("error", ids[0], said) + encode_event("done", ids[1], '{"reason":"error"}')


class StreamWriter:
    """Events -> the prediction's events, numbered so that who reads on says where."""

    def __init__(self, request: Request, response_id: str, created: int) -> None:
        self._created = created
        self._numbers = count()

    def feed(self, event: Event) -> bytes:
        match event:
            case TextDelta(index=0, text=text) if text:
                return encode_event("output", self._id(), text)
            case ReasoningDelta(index=0, text=text) if text:
                return encode_event("logs", self._id(), text)
        return b""

    def close(self) -> bytes:
        return encode_event("done", self._id(), "{}")

    def cancel(self) -> bytes:
        """The end of one that somebody cancelled."""
        return encode_event("done", self._id(), '{"reason":"canceled"}')

    def fail(self, error: TokenworksError) -> bytes:
        return encode_failure(error, (self._id(), self._id()))

    def _id(self) -> str:
        return f"{self._created}:{next(self._numbers)}"


class _Done(msgspec.Struct):
    reason: str = ""


class _Error(msgspec.Struct):
    detail: str = ""


class StreamReader:
    """An upstream's events. How many tokens there were is not among them: the prediction tells afterwards."""

    def __init__(self, quirks: Collection[str] = ()) -> None:
        self._splitter = Splitter()
        self._started = False
        self._failed = False

    def feed(self, chunk: bytes) -> list[Event]:
        try:
            return self._events(self._splitter.feed(chunk))
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's stream is garbled: {error}") from error

    def close(self) -> list[Event]:
        try:
            return self._events(self._splitter.close())
        except ValueError as error:
            raise UpstreamBroken(f"The upstream's stream was cut: {error}") from error

    def _events(self, blocks: list[bytes]) -> list[Event]:
        return [event for block in blocks for event in self._read(block)]

    def _read(self, block: bytes) -> list[Event]:
        data = (data_of(block) or b"").decode()
        started: list[Event] = [] if self._started else [Started("", "")]
        match event_of(block):
            case b"output" if data:
                read: list[Event] = [TextDelta(data)]
            case b"error":
                self._failed = True
                read = [Failed(UpstreamBroken(f"The upstream failed: {_detail(data)}"))]
            case b"done" if not self._failed:
                reason = msgspec.json.decode(data or "{}", type=_Done).reason
                end = Failed(UpstreamBroken(f"The upstream ended early: {reason}.")) if reason else None
                read = [end or Finished(FinishReason.STOP)]
            case _:
                return []
        self._started = True
        return started + read


def _detail(data: str) -> str:
    try:
        return msgspec.json.decode(data, type=_Error).detail or data
    except msgspec.MsgspecError:
        return data
