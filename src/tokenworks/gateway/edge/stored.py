"""Files and batches belong to control: this checks the key and passes the rest on, both ways as it comes.

Whose key it was goes along in headers, under the internal token; what control refuses is told in the family's shape.
"""

from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from tokenworks.client import Address
from tokenworks.core.caller import Caller
from tokenworks.core.errors import (
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    RequestTooLarge,
    TokenworksError,
    Unavailable,
)
from tokenworks.gateway.admission.keys import BATCHES, FILES, Keys
from tokenworks.gateway.admission.residency import require_storable
from tokenworks.gateway.edge import headers as render
from tokenworks.gateway.edge.exchange import Exchange, Header
from tokenworks.protocols.anthropic_messages.versions import VERSION_HEADER
from tokenworks.protocols.base import Codec
from tokenworks.snapshot.subscriber import Subscriber

FILES_PATH = "/v1/files"
WEBHOOKS = ("/v1/webhook_endpoints", "/v1/webhook_event_types")
"""They keep nothing of a request."""
PREFIXES = (FILES_PATH, "/v1/batches", *WEBHOOKS)
MESSAGES = "/v1/messages"
MESSAGE_PREFIX = f"{MESSAGES}/batches"
RECEIPTS = "/v1/receipts"
INTERNAL = "/internal/v1/objects"
BODY_BYTES = 1024 * 1024
UPLOAD_BYTES = 512 * 1024 * 1024
SILENCE_SECONDS = 60.0
_UPLOADS = (FILES_PATH, MESSAGE_PREFIX)
_SENT = {b"content-type": "content-type", b"content-length": "content-length"}
_KEPT = ("content-type", "content-length", "content-disposition", "x-content-type-options")
_ERRORS: dict[int, type[TokenworksError]] = {404: NotFound, 405: MethodNotAllowed, 413: RequestTooLarge}


class Stored:
    """`messages` tells errors on the paths of message batches, and on those of files to who says its version; files
    then have its form."""

    def __init__(self, control: Address, token: str, keys: Keys, messages: Codec, snapshot: Subscriber) -> None:
        self._control = control
        self._token = token
        self._keys = keys
        self._messages = messages
        self._snapshot = snapshot
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, exchange: Exchange) -> None:
        path = exchange.path
        if path.startswith(FILES_PATH) and exchange.header(VERSION_HEADER.encode()) is not None:
            exchange.codec, path = self._messages, path.replace(FILES_PATH, f"{MESSAGES}/files", 1)
        elif path.startswith(MESSAGE_PREFIX):
            exchange.codec = self._messages
        caller = await self._keys.identify(exchange, _scope(exchange.path))
        if exchange.method == "POST" and not exchange.path.endswith("/cancel") and not path.startswith(WEBHOOKS):
            require_storable(caller, self._snapshot.state)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._control.connector(), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            )
        body = _Body(exchange, UPLOAD_BYTES if exchange.path in _UPLOADS else BODY_BYTES)
        query = f"?{exchange.query.decode('ascii')}" if exchange.query else ""
        url = self._control.url(INTERNAL + quote(path) + query)
        try:
            async with self._session.request(
                exchange.method,
                URL(url, encoded=True),
                data=body.chunks() if exchange.method in ("POST", "PUT", "PATCH") else None,
                headers=self._headers(exchange, caller),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=SILENCE_SECONDS),
            ) as response:
                if response.status >= 400:
                    raise _refusal(response.status, await response.read())
                await self._pass_on(exchange, response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if body.error is not None:
                raise body.error from error
            raise Unavailable(
                "Files, batches, webhook endpoints and receipts cannot be reached right now; inference goes on.",
                code="control_unavailable",
                retry_after=2.0,
            ) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _headers(self, exchange: Exchange, caller: Caller) -> dict[str, str]:
        sent = {_SENT[name]: value.decode("latin-1") for name, value in exchange.headers if name in _SENT}
        host = (exchange.header(b"host") or b"localhost").decode("latin-1")
        scheme = (exchange.header(b"x-forwarded-proto") or b"http").decode("latin-1")
        return sent | {
            "authorization": f"Bearer {self._token}",
            "x-request-id": exchange.request_id,
            "x-tokenworks-project": caller.project_id,
            "x-tokenworks-key": caller.key_id,
            "x-tokenworks-origin": f"{scheme}://{host}",
        }

    async def _pass_on(self, exchange: Exchange, response: aiohttp.ClientResponse) -> None:
        headers: list[Header] = [
            (name.encode(), response.headers[name].encode("latin-1")) for name in _KEPT if name in response.headers
        ]
        await exchange.start(response.status, [*headers, *render.of_answer(exchange)])
        # An answer that breaks off must not look complete, and no error can be told within a file.
        exchange.tell_failure = _nothing
        async for chunk in response.content.iter_any():
            await exchange.write(chunk)
        await exchange.finish()


class _Body:
    """The caller's body as it comes. `error` is why it stopped, which the client library does not tell."""

    def __init__(self, exchange: Exchange, limit: int) -> None:
        self._exchange = exchange
        self._limit = limit
        self.error: TokenworksError | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._exchange.body_chunks(self._limit, SILENCE_SECONDS):
                yield chunk
        except TokenworksError as error:
            self.error = error
            raise


def _scope(path: str) -> str | None:
    """What a key must be good for. None: any key, as for what its project was charged."""
    if path.startswith(RECEIPTS):
        return None
    return FILES if path.startswith(FILES_PATH) else BATCHES


def _nothing(_: TokenworksError) -> bytes:
    return b""


def _refusal(status: int, body: bytes) -> TokenworksError:
    """Control's error, as if it had been found here."""
    try:
        error = msgspec.json.decode(body)["error"]
        message, param, code = str(error["message"]), error.get("param"), error.get("code")
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        message, param, code = f"The files and batches answered {status}.", None, None
    if status >= 500 or status in (401, 403):
        return Unavailable(message if status == 503 else "Files and batches do not work right now.", retry_after=2.0)
    return _ERRORS.get(status, InvalidRequest)(message, param=param, code=code)
