"""The few bits of HTTP that a worker needs, on raw ASGI: read a body, answer JSON, render an error."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

import msgspec

from tokenworks.core.errors import RequestTooLarge, TokenworksError
from tokenworks.protocols.openai_chat.errors import encode_error
from tokenworks.protocols.validation import decode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Body = TypeVar("Body")

MOST_BODY = 64 * 1024 * 1024
JSON = b"application/json"


class Disconnected(Exception):
    """The caller left before its request was complete."""


async def read(receive: Receive, decoder: "msgspec.json.Decoder[Body]") -> Body:
    """The typed JSON body. InvalidRequest names the field; RequestTooLarge names the limit."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MOST_BODY:
            raise RequestTooLarge(f"The request body is over {MOST_BODY} bytes.")
        more = message.get("more_body", False)
    return decode(decoder, b"".join(parts))


async def answer(
    send: Send, status: int, body: bytes, content_type: bytes = JSON, retry_after: float | None = None
) -> None:
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    if retry_after is not None:
        headers.append((b"retry-after", str(max(1, round(retry_after))).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def answer_json(send: Send, status: int, body: Any) -> None:
    await answer(send, status, msgspec.json.encode(body))


async def answer_error(send: Send, error: TokenworksError) -> None:
    await answer(send, error.status, encode_error(error), retry_after=error.retry_after)


async def gone(receive: Receive) -> None:
    """Waits until the caller is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(work: Awaitable[None], receive: Receive) -> bool:
    """Do the work, but cancel it when the caller leaves; whether it was done."""
    task, left = asyncio.ensure_future(work), asyncio.create_task(gone(receive))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return True
        return False
    finally:
        left.cancel()
        task.cancel()
        await asyncio.gather(task, left, return_exceptions=True)
