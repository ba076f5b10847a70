"""A small HTTP server that answers in every protocol we serve, with the fault that the model's name asks for."""

import asyncio
import contextlib
import json
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable

from tokenworks.chaos import answers
from tokenworks.chaos.faults import Fault, read
from tokenworks.core.errors import ContentRefused, ContextLengthExceeded, InvalidRequest, TokenworksError
from tokenworks.core.events import UsageReport
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols import PROTOCOLS, codec
from tokenworks.protocols.base import Codec

SWITCH = "switch"
FOREVER = 3600.0
PIECE = 1024 * 1024
LARGEST_BODY = 64 * 1024 * 1024
_STATUSES: dict[str, tuple[int, dict[str, str], dict[str, str]]] = {
    "rate-limited": (429, {"retry-after": "1"}, {"type": "rate_limit_error", "code": "rate_limit_exceeded"}),
    "rate-limited-bare": (429, {}, {"type": "rate_limit_error", "code": "rate_limit_exceeded"}),
    "error-500": (500, {}, {"type": "server_error"}),
    "error-500-once": (500, {}, {"type": "server_error"}),
    "flapping": (500, {}, {"type": "server_error"}),
    "overloaded": (503, {"retry-after": "1"}, {"type": "overloaded_error"}),
    "credential": (401, {}, {"type": "authentication_error", "code": "invalid_api_key"}),
    "quota": (429, {}, {"type": "insufficient_quota", "code": "insufficient_quota"}),
    "unknown-model": (404, {}, {"type": "not_found_error", "code": "model_not_found"}),
}
_REFUSALS: dict[str, TokenworksError] = {
    "context-length": ContextLengthExceeded("This model's maximum context length is 8 tokens.", param="messages"),
    "content-filter": ContentRefused("The content policy forbids this."),
}


class ChaosServer:
    """`pace` seconds lie between pieces of a stream. `connections` are those that are open now."""

    def __init__(self, *, pace: float = 0.0, trickle: float = 0.05) -> None:
        self.connections = 0
        self.switch = "ok"
        """The fault of the model `switch`: it may change while the server runs."""
        self.requests: Counter[str] = Counter()
        """By the model that was asked for."""
        self._pace = pace
        self._trickle = trickle
        self._seen: Counter[bytes] = Counter()
        self._codecs = {found.path: found for found in (codec(name) for name in PROTOCOLS)}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """The port it listens on."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=LARGEST_BODY)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a server's handler is one
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, which is nothing to chaos
        finally:
            self.connections -= 1
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        words = head.split(b" ", 2)
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        body = await reader.readexactly(length)
        path = words[1].decode()
        found = next((each for end, each in self._codecs.items() if path.endswith(end)), None)
        if found is None:
            await _respond(writer, 404, b'{"error":{"message":"chaos serves no such path"}}')
            return True
        try:
            request = found.decode_request(body)
            fault = read(self.switch if request.model.endswith(SWITCH) else request.model)
        except (TokenworksError, ValueError) as error:
            told = error if isinstance(error, TokenworksError) else InvalidRequest(str(error), param="model")
            await _respond(writer, told.status, found.encode_error(told))
            return True
        number, again = self.requests[request.model], self._seen[body]
        self.requests[request.model] += 1
        self._seen[body] += 1
        hit = fault.hits(number) and not (fault.kind == "error-500-once" and again)
        return await _Answer(writer, found, request, fault if hit else Fault("ok"), self._pace, self._trickle).give(
            reader
        )


class _Answer:
    def __init__(
        self,
        writer: asyncio.StreamWriter,
        found: Codec,
        request: Request,
        fault: Fault,
        pace: float,
        trickle: float,
    ) -> None:
        self._writer = writer
        self._codec = found
        self._request = request
        self._fault = fault
        self._pace = pace
        self._trickle = trickle

    async def give(self, reader: asyncio.StreamReader) -> bool:
        kind = self._fault.kind
        if kind in _STATUSES:
            status, headers, error = _STATUSES[kind]
            body = {"type": "error", "error": {"message": f"chaos: {kind}", **error}}
            await _respond(self._writer, status, json.dumps(body).encode(), headers)
            return True
        if kind in _REFUSALS:
            await _respond(self._writer, 400, self._codec.encode_error(_REFUSALS[kind]))
            return True
        if kind == "prefill-refused" and answers.said_before(self._request) is not None:
            refused = InvalidRequest("This model does not support assistant message prefill.", param="messages")
            await _respond(self._writer, 400, self._codec.encode_error(refused))
            return True
        if kind == "reset":
            _reset(self._writer)
            return False
        if kind == "silence":
            await _until_gone(reader)
            return False
        if kind in ("empty", "page"):
            page = b"<html>The gateway is on fire.</html>" if kind == "page" else b""
            await _respond(self._writer, 200, page, content_type="text/html")
            return True
        events = answers.events(self._request)
        if kind == "wrong-usage":
            events[-1] = UsageReport(Usage(input=-5, output=-(10**12)))
        if self._request.stream:
            return await self._stream(answers.stream(self._codec, self._request, events), reader)
        return await self._whole(answers.whole(self._codec, self._request, events), reader)

    async def _whole(self, body: bytes, reader: asyncio.StreamReader) -> bool:
        half = len(body) // 2
        match self._fault.kind:
            case "cut" | "missing-terminator":
                self._writer.write(_head(200, len(body)) + body[:half])
                await self._writer.drain()
                _reset(self._writer)
                return False
            case "stall" | "slow-first-token":
                self._writer.write(_head(200, len(body)) + body[:half])
                await _until_gone(reader)
                return False
            case "garbled":
                body = body[:half] + b"\x00{" + body[half:]
            case "huge-chunk":
                body = b" " * PIECE + body
            case "trickle":
                self._writer.write(_head(200, len(body)))
                for at in range(0, len(body), max(len(body) // 10, 1)):
                    self._writer.write(body[at : at + max(len(body) // 10, 1)])
                    await asyncio.sleep(self._trickle)
                return True
        await _respond(self._writer, 200, body)
        return True

    async def _stream(self, pieces: list[bytes], reader: asyncio.StreamReader) -> bool:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self._writer.write(head)
        kind, after = self._fault.kind, self._fault.after
        if kind == "slow-first-token":
            await _until_gone(reader, lambda: self._write(b": still thinking\n\n"))
            return False
        if kind == "huge-chunk":
            await self._write(b": " + b"x" * PIECE + b"\n\n")
        for number, piece in enumerate(pieces):
            if number == after + self._before(pieces):
                if kind == "cut":
                    await self._writer.drain()
                    await asyncio.sleep(0.01)
                    _reset(self._writer)
                    return False
                if kind == "stall":
                    await _until_gone(reader)
                    return False
                if kind == "garbled":
                    await self._write(b"data: {garbled\n\n")
                if kind == "missing-terminator":
                    break
            await self._write(piece)
            if kind == "trickle":
                await self._write(b": \n\n")
            await asyncio.sleep(self._trickle if kind == "trickle" else self._pace)
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()
        return True

    def _before(self, pieces: list[bytes]) -> int:
        """Pieces before the first output: protocols begin in different ways."""
        return next((n for n, piece in enumerate(pieces) if b"The" in piece or b'"id":"call_chaos1"' in piece), 0)

    async def _write(self, piece: bytes) -> None:
        self._writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        await self._writer.drain()


def _head(
    status: int, length: int, headers: dict[str, str] | None = None, content_type: str = "application/json"
) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return (
        f"HTTP/1.1 {status} chaos\r\ncontent-type: {content_type}\r\n{lines}content-length: {length}\r\n\r\n".encode()
    )


async def _respond(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    headers: dict[str, str] | None = None,
    content_type: str = "application/json",
) -> None:
    writer.write(_head(status, len(body), headers, content_type) + body)
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End the connection without a goodbye."""
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):  # it has left already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _until_gone(reader: asyncio.StreamReader, meanwhile: Callable[[], Awaitable[None]] | None = None) -> None:
    """Keep a client waiting until it leaves."""
    while True:
        try:
            async with asyncio.timeout(0.1 if meanwhile else FOREVER):
                if not await reader.read(1):
                    return
        except TimeoutError:
            if meanwhile is None:
                return
            await meanwhile()
