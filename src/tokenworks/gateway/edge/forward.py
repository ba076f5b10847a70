"""Admin, console and docs belong to control; callers reach them through the gateway's one address."""

import aiohttp

from tokenworks.client import Address
from tokenworks.core.errors import Unavailable
from tokenworks.gateway.edge.exchange import Exchange

PREFIXES = ("/admin/", "/v1/organization/", "/docs", "/openapi.json", "/webhooks/")
BODY_BYTES = 1024 * 1024
IMPORT_BYTES = 16 * 1024 * 1024
_IMPORTS = ("/admin/v1/prices/import", "/admin/v1/billing/reconciliations")
_PASSED = {b"authorization", b"content-type", b"accept", b"idempotency-key", b"stripe-signature"}
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-type", "server", "date"}


class Forward:
    def __init__(self, control: Address) -> None:
        self._control = control
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, exchange: Exchange) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=self._control.connector())
        limit = IMPORT_BYTES if exchange.path in _IMPORTS else BODY_BYTES
        body = await exchange.read_body(limit, 30.0)
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers if name in _PASSED
        }
        headers["x-request-id"] = exchange.request_id
        said = (exchange.header(b"x-forwarded-for") or b"").decode("latin-1")
        headers["x-forwarded-for"] = ", ".join(filter(None, (said, exchange.client)))
        path = exchange.raw_path.decode("ascii") + (f"?{exchange.query.decode('ascii')}" if exchange.query else "")
        try:
            async with self._session.request(
                exchange.method,
                self._control.url(path),
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=60, sock_connect=2),
            ) as response:
                answer = await response.read()
                kept = [
                    (name.lower().encode(), value.encode("latin-1"))
                    for name, value in response.headers.items()
                    if name.lower() not in _HOP_BY_HOP
                ]
                content_type = response.headers.get("content-type", "application/octet-stream").encode()
                await exchange.respond(response.status, answer, content_type=content_type, headers=kept)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(
                "Control cannot be reached, so nothing can be administered right now; inference goes on.",
                code="control_unavailable",
                retry_after=2.0,
            ) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
