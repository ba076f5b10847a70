"""multipart/form-data as it comes (RFC 7578): parts, and the bytes of the part that is open. Never a part whole."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from tokenworks.core.errors import InvalidRequest

HEAD_BYTES = 16 * 1024
LONGEST_BOUNDARY = 200
_PARAMETER = re.compile(r';\s*([a-z*-]+)=(?:"((?:\\.|[^"\\])*)"|([^\s;"]+))', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """The head of a part. `filename` None means a plain field."""

    name: str
    filename: str | None
    content_type: str | None


def boundary(content_type: str) -> bytes:
    kind, _, rest = content_type.partition(";")
    found = dict(_parameters(f";{rest}"))
    if kind.strip().lower() != "multipart/form-data" or not 0 < len(found.get("boundary", "")) <= LONGEST_BOUNDARY:
        raise InvalidRequest("The content-type must be multipart/form-data with a boundary.", code="invalid_multipart")
    return found["boundary"].encode()


class Parser:
    """Fed in any pieces; gives a `Part` where one begins and bytes of the part that is open."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # so that the first delimiter looks like all others
        self._step = self._preamble

    def feed(self, chunk: bytes) -> Iterator[Part | bytes]:
        self._buffer += chunk
        while (found := self._step()) is not None:
            if found:
                yield found

    def close(self) -> None:
        if self._step != self._epilogue:
            raise InvalidRequest("The multipart body ends before its last boundary.", code="invalid_multipart")

    def _preamble(self) -> Part | bytes | None:
        """b"": go on. None: more bytes are needed."""
        found = self._until_delimiter()
        return b"" if found is not None and self._step != self._preamble else None

    def _body(self) -> Part | bytes | None:
        return self._until_delimiter()

    def _until_delimiter(self) -> bytes | None:
        at = self._buffer.find(self._delimiter)
        if at >= 0:
            data = bytes(self._buffer[:at])
            del self._buffer[: at + len(self._delimiter)]
            self._step = self._after_delimiter
            return data
        data = bytes(self._buffer[: 1 - len(self._delimiter)])
        del self._buffer[: len(data)]
        return data or None

    def _after_delimiter(self) -> Part | bytes | None:
        if len(self._buffer) < 2:
            return None
        if self._buffer.startswith(b"--"):
            self._buffer.clear()
            self._step = self._epilogue
            return b""
        at = self._buffer.find(b"\r\n")
        if at < 0 or self._buffer[:at].strip(b" \t"):
            if at < 0 and len(self._buffer) <= LONGEST_BOUNDARY and not self._buffer.strip(b" \t\r"):
                return None
            raise InvalidRequest("A multipart boundary is not followed by a line's end.", code="invalid_multipart")
        del self._buffer[:at]  # the line's end stays: it may be the one that ends empty headers
        self._step = self._head
        return b""

    def _head(self) -> Part | bytes | None:
        at = self._buffer.find(b"\r\n\r\n")
        if at > HEAD_BYTES or (at < 0 and len(self._buffer) > HEAD_BYTES):
            raise InvalidRequest("The headers of a part are too long.", code="invalid_multipart")
        if at < 0:
            return None
        head = bytes(self._buffer[:at])
        del self._buffer[: at + 4]
        self._step = self._body
        return _part(head)

    def _epilogue(self) -> Part | bytes | None:
        self._buffer.clear()
        return None


class FormReader:
    """Part after part of a body that is coming in; `data` of the last one until the next."""

    def __init__(self, chunks: AsyncIterator[bytes], boundary: bytes) -> None:
        self._events = _events(chunks, Parser(boundary))
        self._next: Part | None = None

    async def part(self) -> Part | None:
        """The next part, its predecessor's rest skipped; None at the end."""
        if self._next is None:
            async for _ in self.data():
                pass
        found, self._next = self._next, None
        return found

    async def data(self) -> AsyncIterator[bytes]:
        async for event in self._events:
            if isinstance(event, Part):
                self._next = event
                return
            yield event

    async def text(self, limit: int = 4096) -> str:
        """A plain field's value."""
        value = bytearray()
        async for piece in self.data():
            value += piece
            if len(value) > limit:
                raise InvalidRequest(f"A form field is longer than {limit} bytes.", code="invalid_multipart")
        return value.decode("utf-8", "replace")


async def _events(chunks: AsyncIterator[bytes], parser: Parser) -> AsyncIterator[Part | bytes]:
    async for chunk in chunks:
        for event in parser.feed(chunk):
            yield event
    parser.close()


def _part(head: bytes) -> Part:
    headers = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    disposition = headers.get("content-disposition", "")
    found = dict(_parameters(disposition))
    if not disposition.lower().startswith("form-data") or "name" not in found:
        raise InvalidRequest("A part has no content-disposition with a name.", code="invalid_multipart")
    return Part(found["name"], found.get("filename"), headers.get("content-type"))


def _parameters(text: str) -> Iterator[tuple[str, str]]:
    for name, given, plain in _PARAMETER.findall(text):
        yield name.lower(), re.sub(r"\\(.)", r"\1", given) or plain
