"""In front of every route: who may enter, and how large a body may be. The caller is checked before the body is read.

`/internal/` takes the token derived from the cluster key, `/admin/` and `/v1/organization/` an admin key; the rest
(the OpenAPI document and its page) is public.
"""

import asyncio
import hashlib
import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenworks.answers.records import LARGEST_SAVE
from tokenworks.answers.records import PATH as ANSWERS
from tokenworks.batches.records import LARGEST_CALL, LEASE_PATH
from tokenworks.control import errors
from tokenworks.control.batches.rules import MESSAGE_BATCH, MESSAGES, MOST_BYTES
from tokenworks.control.storage import api_keys, tenants
from tokenworks.control.storage.database import Database
from tokenworks.control.tenant import OBJECTS
from tokenworks.core.clock import Clock
from tokenworks.core.errors import InvalidRequest, PermissionDenied, RequestTooLarge, TokenworksError, Unauthenticated

BODY_LIMIT = 1024 * 1024
JOURNAL_LIMIT = 4 * 1024 * 1024
BODY_SECONDS = 30.0
_INTERNAL = "/internal/"
_ADMIN = ("/admin/", "/v1/organization/")
_LIMITS = {"/internal/v1/journal/": JOURNAL_LIMIT, f"{ANSWERS}/": LARGEST_SAVE, LEASE_PATH: LARGEST_CALL}
_STREAMED = {
    f"{OBJECTS}/v1/files": 512 * 1024 * 1024,
    f"{OBJECTS}{MESSAGES}/batches": MOST_BYTES[MESSAGE_BATCH],
}
"""Bodies that their route takes as they come, and their limits."""


class ClientGone(Exception):
    """It left while it sent its body: there is nobody to answer."""


class Guard:
    def __init__(self, app: ASGIApp, database: Database, internal_token: str, clock: Clock) -> None:
        self._app = app
        self._database = database
        self._internal_token = internal_token.encode()
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        limit = next((limit for path, limit in _LIMITS.items() if scope["path"].startswith(path)), BODY_LIMIT)
        try:
            await self._admit(scope["path"], headers.get("authorization", ""))
            if scope["method"] == "POST" and scope["path"] in _STREAMED:
                receive = _counted(headers, receive, _STREAMED[scope["path"]])
            else:
                receive = await _bounded(headers, receive, limit)
        except TokenworksError as error:
            return await errors.response(error)(scope, receive, send)
        except ClientGone:
            return None
        return await self._app(scope, receive, send)

    async def _admit(self, path: str, authorization: str) -> None:
        if not path.startswith((_INTERNAL, *_ADMIN)):
            return
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("No key was sent: add the header 'authorization: Bearer KEY'.")
        if path.startswith(_INTERNAL):
            if not hmac.compare_digest(token.encode(), self._internal_token):
                raise Unauthenticated("This is not the internal token: has every process the same cluster key?")
            return
        digest = hashlib.sha256(token.encode()).hexdigest()
        async with self._database.read() as connection:
            if await tenants.is_admin(connection, digest):
                return
            if await api_keys.find_active(connection, digest, self._clock.now_ns() // 1_000_000_000):
                raise PermissionDenied("This is an API key; the admin API needs an admin key (sk-tw-admin-...).")
        raise Unauthenticated("The admin key is not known or was revoked.")


def _declared(headers: Headers, limit: int) -> int:
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise InvalidRequest("The content-length header is not a number.")
    if int(length) > limit:
        raise RequestTooLarge(f"The body has {length} bytes; at most {limit} are taken.")
    return int(length)


def _counted(headers: Headers, receive: Receive, limit: int) -> Receive:
    """The body as it comes; whoever reads it gets RequestTooLarge, or InvalidRequest when nothing more comes."""
    _declared(headers, limit)
    size = 0

    async def count() -> Message:
        nonlocal size
        try:
            async with asyncio.timeout(BODY_SECONDS):
                message = await receive()
        except TimeoutError as error:
            raise InvalidRequest(f"Nothing came for {BODY_SECONDS:g} s.", code="body_timeout") from error
        size += len(message.get("body", b""))
        if size > limit:
            raise RequestTooLarge(f"The body has more than the {limit} bytes that are taken.")
        return message

    return count


async def _bounded(headers: Headers, receive: Receive, limit: int) -> Receive:
    """Read the body, then hand it over in one piece and after it whatever else comes (the disconnect)."""
    length = _declared(headers, limit)
    if length == 0 and "transfer-encoding" not in headers:
        return receive
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _read(receive, limit)
    except TimeoutError as error:
        raise InvalidRequest(f"The body did not arrive within {BODY_SECONDS:g} s.", code="body_timeout") from error
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise RequestTooLarge(f"The body has more than the {limit} bytes that are taken.")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
