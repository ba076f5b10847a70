"""In front of every route: who may enter, and how large a body may be. The caller is checked before the body is read.

`/internal/` takes the token derived from the cluster key; `/admin/`, `/v1/organization/` and `/v1/receipts/` take an
admin key, whose holder is then `request.state.actor`. The rest is public: the OpenAPI document and its page, an invite
being accepted, a payment provider's signed events, the keys that receipts are signed with.
"""

import asyncio
import hashlib
import hmac

from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenworks.answers.records import LARGEST_SAVE
from tokenworks.answers.records import PATH as ANSWERS
from tokenworks.batches.records import LARGEST_CALL, LEASE_PATH
from tokenworks.control import errors
from tokenworks.control.access import Actor, Role
from tokenworks.control.batches.rules import MESSAGE_BATCH, MESSAGES, MOST_BYTES
from tokenworks.control.storage import admin_keys, api_keys
from tokenworks.control.storage.admin_keys import AdminKey
from tokenworks.control.storage.database import Database
from tokenworks.control.tenant import OBJECTS
from tokenworks.core.clock import Clock
from tokenworks.core.errors import InvalidRequest, PermissionDenied, RequestTooLarge, TokenworksError, Unauthenticated

BODY_LIMIT = 1024 * 1024
JOURNAL_LIMIT = 4 * 1024 * 1024
BODY_SECONDS = 30.0
_INTERNAL = "/internal/"
_ADMIN = ("/admin/", "/v1/organization/", "/v1/receipts/")
_PUBLIC = ("/admin/v1/invites/accept", "/v1/receipts/keys")
LAST_USED_SECONDS = 60
_LIMITS = {
    "/internal/v1/journal/": JOURNAL_LIMIT,
    "/admin/v1/prices/import": 16 * 1024 * 1024,
    "/admin/v1/billing/reconciliations": 16 * 1024 * 1024,
    f"{ANSWERS}/": LARGEST_SAVE,
    LEASE_PATH: LARGEST_CALL,
}
_STREAMED = {
    f"{OBJECTS}/v1/files": 512 * 1024 * 1024,
    f"{OBJECTS}{MESSAGES}/files": 512 * 1024 * 1024,
    f"{OBJECTS}/v1/predictions/files": 512 * 1024 * 1024,
    f"{OBJECTS}/v1/together/files/content": 512 * 1024 * 1024,
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
            await self._admit(scope, headers)
            if scope["method"] == "POST" and scope["path"] in _STREAMED:
                receive = _counted(headers, receive, _STREAMED[scope["path"]])
            else:
                receive = await _bounded(headers, receive, limit)
        except TokenworksError as error:
            return await errors.response(error)(scope, receive, send)
        except SQLAlchemyError as error:
            return await errors.response(errors.database_away(error))(scope, receive, send)
        except ClientGone:
            return None
        return await self._app(scope, receive, send)

    async def _admit(self, scope: Scope, headers: Headers) -> None:
        path: str = scope["path"]
        if not path.startswith((_INTERNAL, *_ADMIN)) or path in _PUBLIC:
            return
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("No key was sent: add the header 'authorization: Bearer KEY'.")
        if path.startswith(_INTERNAL):
            if not hmac.compare_digest(token.encode(), self._internal_token):
                raise Unauthenticated("This is not the internal token: has every process the same cluster key?")
            return
        key = await self._admin_key(hashlib.sha256(token.encode()).hexdigest())
        scope.setdefault("state", {})["actor"] = Actor(
            key_id=key.id,
            key_name=key.name,
            organization_id=key.organization_id,
            role=Role(key.role),
            user_id=key.user_id,
            email=key.email,
            # The gateway appends whom it was called by; what stands before that, anybody may have written.
            address=headers.get("x-forwarded-for", "").rpartition(",")[2].strip()[:64],
            request_id=headers.get("x-request-id", "")[:64],
            call=f"{scope['method']} {path}"[:500],
        )
        # The official client writes a list as name[]=a&name[]=b.
        scope["query_string"] = scope["query_string"].replace(b"%5B%5D=", b"=").replace(b"[]=", b"=")

    async def _admin_key(self, digest: str) -> AdminKey:
        now = self._clock.now_ns() // 1_000_000_000
        async with self._database.read() as connection:
            key = await admin_keys.find_active(connection, digest, now)
            if key is None and await api_keys.find_active(connection, digest, now):
                raise PermissionDenied("This is an API key; the admin API needs an admin key (sk-tw-admin-...).")
        if key is None or not hmac.compare_digest(key.digest, digest):
            raise Unauthenticated("The admin key is not known, has expired or was revoked.")
        if (key.last_used_at or 0) <= now - LAST_USED_SECONDS:
            async with self._database.write() as connection:
                await admin_keys.touch(connection, key.id, now)
        return key


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
