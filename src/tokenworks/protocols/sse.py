"""Server-sent events, as inference streams use them (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Events are separated by a blank line; LF, CRLF and CR end a line. Only complete events are given out.
"""

from collections.abc import Iterator

MAX_EVENT = 16 * 1024 * 1024


class Splitter:
    """Bytes in any pieces -> whole event blocks, each without its final blank line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """ValueError when one event grows beyond MAX_EVENT."""
        data = self._rest + chunk if self._rest else chunk
        if b"\r" in data:
            # A CR at the very end may be half of a CRLF: keep it for the next chunk.
            data, held = (data[:-1], b"\r") if data.endswith(b"\r") else (data, b"")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            held = b""
        blocks = data.split(b"\n\n")
        self._rest = blocks.pop() + held
        if len(self._rest) > MAX_EVENT:
            raise ValueError(f"a stream event is larger than {MAX_EVENT} bytes")
        return blocks

    def close(self) -> list[bytes]:
        """What an upstream left without its blank line."""
        rest, self._rest = self._rest.replace(b"\r", b"\n").strip(b"\n"), b""
        return [rest] if rest else []


def data_of(block: bytes) -> bytes | None:
    """The data of one event block, its lines joined; None when it has none (a comment, a ping)."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:]
    lines = [line[6:] if line.startswith(b"data: ") else line[5:] for line in _data_lines(block)]
    return b"\n".join(lines) if lines else None


def event_of(block: bytes) -> bytes:
    """The event's name; `message` when it has none, as the standard says."""
    for line in block.split(b"\n"):
        if line.startswith(b"event:"):
            return line[6:].strip()
    return b"message"


def id_of(block: bytes) -> bytes | None:
    for line in block.split(b"\n"):
        if line.startswith(b"id:"):
            return line[3:].strip()
    return None


def _data_lines(block: bytes) -> Iterator[bytes]:
    return (line for line in block.split(b"\n") if line.startswith(b"data:"))
