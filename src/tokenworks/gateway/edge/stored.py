"""Files and batches belong to control: this checks the key and passes the rest on, both ways as it comes.

Whose key it was goes along in headers, under the internal token; what control refuses is told in the family's shape.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from yarl import URL

from tokenworks.client import Address
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
from tokenworks.gateway.edge.signed import Signed, signed
from tokenworks.protocols.anthropic_messages.versions import VERSION_HEADER
from tokenworks.protocols.base import Codec
from tokenworks.protocols.replicate.codec import CODEC as PREDICTIONS
from tokenworks.snapshot.sealing import internal_token
from tokenworks.snapshot.subscriber import Subscriber

FILES_PATH, BATCHES_PATH = "/v1/files", "/v1/batches"
WEBHOOKS = ("/v1/webhook_endpoints", "/v1/webhook_event_types")
"""They keep nothing of a request."""
PREFIXES = (FILES_PATH, BATCHES_PATH, *WEBHOOKS)
MESSAGES = "/v1/messages"
MESSAGE_PREFIX = f"{MESSAGES}/batches"
RECEIPTS = "/v1/receipts"
INTERNAL = "/internal/v1/objects"
BODY_BYTES = 1024 * 1024
UPLOAD_BYTES = 512 * 1024 * 1024
SILENCE_SECONDS = 60.0
_UPLOADS = (FILES_PATH, MESSAGE_PREFIX)
_SENT = {b"content-type": "content-type", b"content-length": "content-length"}
_KEPT = (
    *("content-type", "content-length", "content-disposition", "x-content-type-options"),
    *("location", "x-together-file-id"),
)
_TOGETHER = (b"together/", b"asynctogether/")
"""How the user agents of Together's clients begin."""
_ERRORS: dict[int, type[TokenworksError]] = {404: NotFound, 405: MethodNotAllowed, 413: RequestTooLarge}


class Stored:
    """`messages` tells errors on the paths of message batches, and on those of files to who says its version; files
    then have its form."""

    def __init__(self, control: Address, cluster_key: bytes, keys: Keys, messages: Codec, snapshot: Subscriber) -> None:
        self._control = control
        self._token = internal_token(cluster_key)
        self._cluster_key = cluster_key
        self._keys = keys
        self._messages = messages
        self._snapshot = snapshot
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, exchange: Exchange) -> None:
        if (ticket := signed(exchange, self._cluster_key)) is not None:
            await self._signed(exchange, ticket)
            return
        path = self._in_form(exchange)
        caller = await self._keys.identify(exchange, _scope(exchange.path))
        if exchange.method == "POST" and not exchange.path.endswith("/cancel") and not path.startswith(WEBHOOKS):
            require_storable(caller, self._snapshot.state)
        uploaded = exchange.path in _UPLOADS
        await self._call(exchange, exchange.method, path, _Of(caller.project_id, caller.key_id), uploaded=uploaded)

    def _in_form(self, exchange: Exchange) -> str:
        """The path where control speaks as the caller's client does; errors then have its shape, too."""
        path = exchange.path
        if path.startswith(MESSAGE_PREFIX):
            exchange.codec = self._messages
        if not path.startswith((FILES_PATH, BATCHES_PATH)):
            return path
        if path.startswith(FILES_PATH) and exchange.header(VERSION_HEADER.encode()) is not None:
            exchange.codec = self._messages
            return path.replace(FILES_PATH, f"{MESSAGES}/files", 1)
        client = (exchange.header(b"user-agent") or b"").lower()
        if client.startswith(_TOGETHER):
            return path.replace("/v1/", "/v1/together/", 1)
        if path.startswith(FILES_PATH) and client.startswith(b"replicate"):
            exchange.codec = PREDICTIONS
            return path.replace("/v1/", "/v1/predictions/", 1)
        return path

    async def _signed(self, exchange: Exchange, ticket: Signed) -> None:
        """A file's content, or its way here, by a URL that needs no key."""
        of = _Of(ticket.project_id, "")
        if exchange.method == "PUT":
            exchange.query = urlencode({"id": ticket.file_id, "checksum": ticket.checksum}).encode()
            await self._call(exchange, "POST", f"/v1/together{FILES_PATH[3:]}/content", of, uploaded=True)
        else:
            exchange.query = b""
            await self._call(exchange, exchange.method, exchange.path, of, uploaded=False)

    async def _call(self, exchange: Exchange, method: str, path: str, of: "_Of", *, uploaded: bool) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._control.connector(), cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            )
        body = _Body(exchange, UPLOAD_BYTES if uploaded else BODY_BYTES)
        query = f"?{exchange.query.decode('ascii')}" if exchange.query else ""
        url = self._control.url(INTERNAL + quote(path) + query)
        try:
            async with self._session.request(
                method,
                URL(url, encoded=True),
                data=body.chunks() if method in ("POST", "PUT", "PATCH") else None,
                headers=self._headers(exchange, of),
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

    def _headers(self, exchange: Exchange, of: "_Of") -> dict[str, str]:
        sent = {_SENT[name]: value.decode("latin-1") for name, value in exchange.headers if name in _SENT}
        host = (exchange.header(b"host") or b"localhost").decode("latin-1")
        scheme = (exchange.header(b"x-forwarded-proto") or b"http").decode("latin-1")
        return sent | {
            "authorization": f"Bearer {self._token}",
            "x-request-id": exchange.request_id,
            "x-tokenworks-project": of.project_id,
            "x-tokenworks-key": of.key_id,
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


class _Of(NamedTuple):
    """On whose behalf control is called."""

    project_id: str
    key_id: str


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
