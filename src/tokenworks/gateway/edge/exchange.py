"""One HTTP request and its answer, over ASGI."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from tokenworks.core import request_ids
from tokenworks.core.aliases.records import Resolution
from tokenworks.core.allowance import Allowance
from tokenworks.core.errors import InvalidRequest, RequestTooLarge, TokenworksError
from tokenworks.protocols.base import Codec

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON = b"application/json"


class Keeper(Protocol):
    """Who keeps an answer: sees all of it on its way to the caller."""

    def note(self, chunk: bytes) -> None:
        """Part of a stream."""
        ...

    async def last(self, data: bytes) -> bytes:
        """The end of the answer, or all of it, once it is settled; and what is sent in its place."""
        ...


class Exchange:
    """`started` tells whether the status line left, after which an error can only be told inside the body."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.raw_path: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self.headers: list[Header] = scope["headers"]
        self.client: str = (scope.get("client") or ("",))[0]
        """The address that the connection came from; "" for a Unix socket."""
        self.request_id = request_ids.new()
        self.codec: Codec | None = None
        """What answers, errors too: the path's protocol, or the dialect of it that the body asks for."""
        self.started = False
        self._arrived = time.perf_counter()
        self.status = 0
        self.organization = ""
        """Whose key it was, once that is known."""
        self.allowances: Sequence[Allowance] = ()
        """What is left of the caller's limits, this request counted."""
        self.notes: dict[str, Any] = {}
        """What the log line of this request says about it: never prompt or answer text."""
        self.tell_failure: Callable[[TokenworksError], bytes] | None = None
        """How the stream that is under way says that it broke, where its codec alone cannot."""
        self.ignored: Sequence[str] = ()
        """Parameters without effect, where it is answered before anybody is asked."""
        self.degraded = ""
        """Why limits were applied by this gateway alone."""
        self.ended = ""
        """Why the answer was ended before the model did."""
        self.charge: int | None = None
        """What the answer costs its caller, in nano-dollars, once that is known."""
        self.cached: Sequence[Header] = ()
        """What its headers say of the cache of answers."""
        self.via: Resolution | None = None
        """How the virtual model that was named became the one that answers."""
        self.guarded = ""
        """Which guardrails looked at the request, and what they found."""
        self.keeper: Keeper | None = None
        self._read = False
        self._finished = False
        self._last_write = 0.0
        self._keep_alive: asyncio.TimerHandle | None = None
        self._speaking: asyncio.Task[None] | None = None

    def named(self, via: Resolution | None) -> None:
        """Which model was asked for, where it is a virtual one."""
        self.via = via
        if via is not None:
            self.notes |= {"alias": via.alias, "alias_version": via.version}

    def unalias(self, alias: str) -> None:
        """Go on as if the path had not begun with `alias`."""
        self.path = self.path.removeprefix(alias)
        self.raw_path = self.raw_path.removeprefix(alias.encode())

    def age(self) -> float:
        """Seconds since the request's head arrived."""
        return time.perf_counter() - self._arrived

    def header(self, name: bytes) -> bytes | None:
        """`name` in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def header_texts(self) -> dict[str, str]:
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers}

    async def read_body(self, limit: int, timeout: float) -> bytes:
        """RequestTooLarge beyond `limit` bytes, InvalidRequest when it does not arrive within `timeout` seconds."""
        declared = self.header(b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        message = await self._next(timeout)
        self._read = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if len(body) > limit:
                raise _too_large(limit)
            return body
        pieces, size = [body], len(body)
        deadline = asyncio.get_running_loop().time() + timeout
        while message.get("more_body", False):
            message = await self._next(deadline - asyncio.get_running_loop().time())
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > limit:
                raise _too_large(limit)
        self._read = True
        return b"".join(pieces)

    async def body_chunks(self, limit: int, silence: float) -> AsyncIterator[bytes]:
        """The body as it comes, never whole. RequestTooLarge beyond `limit`, InvalidRequest after `silence` seconds."""
        declared = self.header(b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        size = 0
        while not self._read:
            message = await self._next(silence)
            self._read = not message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > limit:
                raise _too_large(limit)
            yield message.get("body", b"")

    async def _next(self, timeout: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout):
                message = await self._receive()
        except TimeoutError:
            raise InvalidRequest("The request body did not arrive in time.", code="body_timeout") from None
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError("the caller left")
        return message

    def has_unread_body(self) -> bool:
        """The rest of a refused body would be taken for the next request: such a connection must close."""
        return not self._read and self.method not in ("GET", "HEAD", "DELETE")

    async def respond(
        self, status: int, body: bytes, *, content_type: bytes = JSON, headers: Iterable[Header] = ()
    ) -> None:
        """A whole answer."""
        if self.keeper is not None and status == 200:
            body = await self.keeper.last(body)
            if self.started:  # it was padded meanwhile
                await self._write(body, more=False)
                return
        length = (b"content-length", str(len(body)).encode())
        await self._start(status, [(b"content-type", content_type), length, *headers])
        await self._write(body, more=False)

    async def start(self, status: int, headers: Iterable[Header]) -> None:
        """The head of an answer that says its own type and length."""
        await self._start(status, list(headers))

    async def start_stream(self, content_type: bytes, headers: Iterable[Header] = ()) -> None:
        await self._start(200, [(b"content-type", content_type), (b"cache-control", b"no-cache"), *headers])

    async def write(self, chunk: bytes) -> None:
        self._last_write = asyncio.get_running_loop().time()
        if self.keeper is not None:
            self.keeper.note(chunk)
        await self._write(chunk, more=True)

    async def finish(self, tail: bytes = b"") -> None:
        if self.keeper is not None:
            tail = await self.keeper.last(tail)
        await self._write(tail, more=False)

    def keep_alive(self, every: float, comment: bytes, start: Callable[[], Awaitable[None]]) -> None:
        """While nothing is written for `every` seconds, start the answer and write a comment that clients skip."""
        loop = asyncio.get_running_loop()
        self._last_write = loop.time()
        if self._keep_alive is not None:
            self._keep_alive.cancel()
        self._keep_alive = loop.call_later(every, self._check_silence, every, comment, start)

    def _check_silence(self, every: float, comment: bytes, start: Callable[[], Awaitable[None]]) -> None:
        if self._finished:
            return
        loop = asyncio.get_running_loop()
        idle = loop.time() - self._last_write
        if idle >= every:
            self._last_write = loop.time()
            self._speaking = loop.create_task(self._speak(comment, start))
            idle = 0.0
        self._keep_alive = loop.call_later(every - idle, self._check_silence, every, comment, start)

    async def _speak(self, comment: bytes, start: Callable[[], Awaitable[None]]) -> None:
        if not self.started:
            await start()
        if not self._finished:
            await self.write(comment)

    def close(self) -> None:
        """No keep-alive comment is written after this."""
        self._finished = True
        if self._keep_alive is not None:
            self._keep_alive.cancel()
            self._keep_alive = None

    async def _start(self, status: int, headers: list[Header]) -> None:
        self.started = True
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _write(self, body: bytes, *, more: bool) -> None:
        if not more:
            self.close()
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _too_large(limit: int) -> RequestTooLarge:
    return RequestTooLarge(f"The request body is larger than the limit of {limit} bytes.", code="request_too_large")
