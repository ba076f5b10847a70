"""A client for Valkey/Redis that is as small as what limits need: one connection, every call in flight at once.

A call that its caller gives up costs nothing: its answer is read and dropped. A general client checks a connection out
for each call and has to throw it away then, which made a thousand aborted requests a second of reconnecting. RESP2;
answers are integers, texts and errors, no arrays.
"""

import asyncio
import ssl
from collections import deque
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Word = bytes | str | int
Answer = int | bytes | None


class ServerError(Exception):
    """What the server said instead of an answer."""


class Server:
    """`url`: redis://[[user]:password@]host[:port][/db], rediss:// with TLS, unix:///path[?db=n]; valkey:// is redis://.

    Every wait is bounded by `timeout` seconds. OSError and TimeoutError when the server cannot be asked.
    """

    def __init__(self, url: str, timeout: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _PORTED and parts.scheme != "unix":
            raise ValueError(f"{url!r}: a limit store is memory, or redis://host:port/0, rediss://... or unix:///path")
        self._path = parts.path if parts.scheme == "unix" else None
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 6379
        self._tls = ssl.create_default_context() if parts.scheme in ("rediss", "valkeys") else None
        database = parse_qs(parts.query).get("db", ["0"])[0] if self._path else parts.path.strip("/") or "0"
        self._hello: list[tuple[Word, ...]] = []
        if parts.password is not None:
            user = (unquote(parts.username),) if parts.username else ()
            self._hello.append(("AUTH", *user, unquote(parts.password)))
        if database != "0":
            self._hello.append(("SELECT", database))
        self._timeout = timeout
        self._line: _Line | None = None
        self._connecting = asyncio.Lock()

    async def call(self, *words: Word) -> Answer:
        line = self._line
        if line is None or line.closed:
            line = await self._connect()
        answer = line.send(words)
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            line.close()
            raise

    async def close(self) -> None:
        if self._line is not None:
            self._line.close()

    async def _connect(self) -> "_Line":
        async with self._connecting:
            if self._line is not None and not self._line.closed:
                return self._line
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(self._timeout):
                if self._path is not None:
                    _, line = await loop.create_unix_connection(_Line, self._path)
                else:
                    _, line = await loop.create_connection(_Line, self._host, self._port, ssl=self._tls)
                try:
                    for words in self._hello:
                        await line.send(words)
                except BaseException:
                    line.close()
                    raise
            self._line = line
            return line


_PORTED = ("redis", "rediss", "valkey", "valkeys")


class _Line(asyncio.Protocol):
    """One connection: answers come in the order of the calls."""

    def __init__(self) -> None:
        self.closed = False
        self._waiting: deque[asyncio.Future[Answer]] = deque()
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        error = ConnectionResetError("the connection to the server is lost")
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # its caller may be gone
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        at = 0
        while (found := _answer(self._buffer, at)) is not None:
            at, answer = found
            waiting = self._waiting.popleft()
            if waiting.done():
                continue
            if isinstance(answer, ServerError):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)
        del self._buffer[:at]

    def send(self, words: tuple[Word, ...]) -> "asyncio.Future[Answer]":
        if self._transport is None or self.closed:
            raise ConnectionResetError("the connection to the server is lost")
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            data = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
        answer = self._loop.create_future()
        self._waiting.append(answer)
        self._transport.write(b"".join(parts))
        return answer

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.abort()


def _answer(buffer: bytearray, at: int) -> tuple[int, Answer | ServerError] | None:
    """The answer that begins at `at` and where the next one does; None when it is not all there."""
    end = buffer.find(b"\r\n", at)
    if end < 0:
        return None
    kind, text = buffer[at], bytes(buffer[at + 1 : end])
    match kind:
        case 58:  # :
            return end + 2, int(text)
        case 36:  # $
            size = int(text)
            if size < 0:
                return end + 2, None
            last = end + 2 + size
            return None if len(buffer) < last + 2 else (last + 2, bytes(buffer[end + 2 : last]))
        case 43:  # +
            return end + 2, text
        case 45:  # -
            return end + 2, ServerError(text.decode(errors="replace"))
        case _:
            raise ConnectionAbortedError(f"the server answered what is no answer to us: {chr(kind)}")
