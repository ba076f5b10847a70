"""Chunked streams whose last chunk says more than that it is the last: what the dialects of some hosts share."""

from collections.abc import Callable
from typing import Any

import msgspec

from tokenworks.core.events import Event, Finished, Timing, UsageReport
from tokenworks.core.usage import Usage
from tokenworks.protocols.base import StreamWriter

Closing = Callable[[Usage, Timing], dict[str, Any]]
_ENCODE = msgspec.json.Encoder().encode


class ClosingWriter:
    """Holds every finish back until usage and times are known; `closing` gives the extra members of the last chunk."""

    def __init__(self, writer: StreamWriter, closing: Closing) -> None:
        self._writer = writer
        self._closing = closing
        self._finishes: list[Finished] = []
        self._usage = Usage()
        self._timing = Timing(0.0, 0.0, 0.0)

    def feed(self, event: Event) -> bytes:
        match event:
            case Finished():
                self._finishes.append(event)
                return b""
            case Timing():
                self._timing = event
            case UsageReport():
                self._usage = event.usage
        return self._writer.feed(event)

    def close(self) -> bytes:
        chunks = [self._writer.feed(finished) for finished in self._finishes]
        chunks[-1:] = [extended(chunk, self._closing(self._usage, self._timing)) for chunk in chunks[-1:]]
        return b"".join(chunks) + self._writer.close()


def extended(chunk: bytes, members: dict[str, Any]) -> bytes:
    """A JSON object, bare or as one event of a stream, with more members."""
    end = chunk.rindex(b"}")
    return chunk[:end] + b"," + _ENCODE(members)[1:-1] + chunk[end:]


def usage_and_timing(events: list[Event]) -> tuple[Usage, Timing]:
    """What the events of a whole answer say about both."""
    usage, timing = Usage(), Timing(0.0, 0.0, 0.0)
    for event in events:
        if isinstance(event, UsageReport):
            usage = event.usage
        elif isinstance(event, Timing):
            timing = event
    return usage, timing
