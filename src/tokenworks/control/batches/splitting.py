"""Large documents in small pieces: the lines of a JSONL object, the elements of a `requests` array. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tokenworks.core.errors import InvalidRequest

_HEAD = re.compile(rb'\s*\{\s*"requests"\s*:\s*\[')
_HEAD_BYTES = 4096
_BETWEEN = re.compile(rb"[\s,]*")
_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')


@dataclass(frozen=True, slots=True)
class Line:
    """`number` from 1; `start` and `length` in bytes of the object. `text` None: it is longer than is allowed."""

    number: int
    start: int
    length: int
    text: bytes | None


class LineSplitter:
    """Lines without their end and without blank ones, which count but say nothing."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._buffer = bytearray()
        self._number = 0
        self._start = 0
        self._skipped = 0

    def feed(self, chunk: bytes) -> Iterator[Line]:
        searched = len(self._buffer)
        self._buffer += chunk
        at = 0
        while (end := self._buffer.find(b"\n", max(at, searched))) >= 0:
            yield from self._line(at, end)
            self._start += self._skipped + end + 1 - at
            self._skipped = 0
            at = end + 1
        del self._buffer[:at]
        if len(self._buffer) + self._skipped > self._longest:
            self._skipped += len(self._buffer)
            self._buffer.clear()

    def close(self) -> Iterator[Line]:
        if self._buffer or self._skipped:
            yield from self._line(0, len(self._buffer))

    def _line(self, begin: int, end: int) -> Iterator[Line]:
        self._number += 1
        length = self._skipped + end - begin
        if length > self._longest:
            yield Line(self._number, self._start, length, None)
            return
        text = bytes(self._buffer[begin:end])
        if self._start == 0:
            text = text.removeprefix(b"\xef\xbb\xbf")
        start = self._start + length - len(text)
        if text.strip():
            yield Line(self._number, start, len(text), text)


class RequestsSplitter:
    """The elements of `{"requests": [...]}`, each as it was written. InvalidRequest for any other document."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._buffer = bytearray()
        self._at = 0
        self._depth = 0
        self._in_string = False
        self._step = self._head

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        self._buffer += chunk
        while (found := self._step()) is not None:
            if found:
                yield found

    def close(self) -> None:
        if self._step != self._end:
            raise _malformed("the document ends too early")

    def _head(self) -> bytes | None:
        found = _HEAD.match(self._buffer)
        if found is None:
            if len(self._buffer) > _HEAD_BYTES:
                raise _malformed("'requests' must be its only member")
            return None
        del self._buffer[: found.end()]
        self._step = self._between
        return b""

    def _between(self) -> bytes | None:
        found = _BETWEEN.match(self._buffer)
        del self._buffer[: found.end() if found else 0]
        if not self._buffer:
            return None
        if self._buffer[0] == ord("]"):
            del self._buffer[0]
            self._step = self._tail
        elif self._buffer[0] == ord("{"):
            self._at = 0
            self._step = self._element
        else:
            raise _malformed("each of 'requests' must be an object")
        return b""

    def _element(self) -> bytes | None:
        buffer = self._buffer
        while True:
            found = (_INSIDE if self._in_string else _OUTSIDE).search(buffer, self._at)
            if found is None:
                self._at = len(buffer)
                break
            sign = found[0]
            if sign == b"\\" and found.end() == len(buffer):
                self._at = found.start()
                break
            self._at = found.end() + (sign == b"\\")
            if sign == b'"':
                self._in_string = not self._in_string
            elif sign in b"{[":
                self._depth += 1
            elif sign in b"}]":
                self._depth -= 1
                if not self._depth:
                    element = bytes(buffer[: self._at])
                    del buffer[: self._at]
                    self._step = self._between
                    return element
        if len(buffer) > self._longest:
            raise InvalidRequest(f"One of 'requests' is larger than {self._longest} bytes.", param="requests")
        return None

    def _tail(self) -> bytes | None:
        rest = self._buffer.lstrip()
        if not rest:
            return None
        if rest[0] != ord("}"):
            raise _malformed("'requests' must be its only member")
        self._buffer = rest[1:]
        self._step = self._end
        return b""

    def _end(self) -> bytes | None:
        if self._buffer.strip():
            raise _malformed("there is more after its end")
        self._buffer.clear()
        return None


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f'The body must be a JSON object {{"requests": [...]}}: {why}.', param="requests")
