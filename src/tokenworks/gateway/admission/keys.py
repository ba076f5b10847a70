"""Step 2 of a request: the key in its headers -> the caller. The cheapest refusal, before the body is read.

A key may be good for some things only (scopes) and from some networks only; both are checked here.
"""

import time
from collections.abc import Sequence
from hashlib import sha256

from tokenworks.core.caller import Caller
from tokenworks.core.errors import PermissionDenied, Unauthenticated
from tokenworks.gateway.edge.addresses import Network, networks, origin, within
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.snapshot.records import KeyRecord
from tokenworks.snapshot.subscriber import Subscriber

INFERENCE, FILES, BATCHES = "inference", "files", "batches"
LONGEST_KEY = 256
_REMEDY = "Send it as 'Authorization: Bearer sk-tw-...'; create one with 'tokenworks keys create'."


class Keys:
    """`proxies` are believed about where a request came from."""

    def __init__(self, snapshot: Subscriber, proxies: Sequence[Network] = ()) -> None:
        self._snapshot = snapshot
        self._proxies = proxies

    async def identify(self, exchange: Exchange, scope: str | None = INFERENCE) -> Caller:
        """Unauthenticated for no key, a wrong one or an expired one; PermissionDenied for one that may not do what
        `scope` names (None: any key may) or not from here; Unavailable when that cannot be told now.
        """
        secret = _secret(exchange)
        if secret is None:
            raise Unauthenticated(f"No API key was given. {_REMEDY}", code="missing_api_key")
        if len(secret) > LONGEST_KEY:
            raise Unauthenticated(f"The API key is not valid. {_REMEDY}")
        # A key is 256 random bits, so a fast hash is enough, and looking its digest up leaks nothing by its timing.
        record = await self._valid(sha256(secret).hexdigest())
        exchange.organization = record.organization_id
        if record.scopes is not None and scope is not None and scope not in record.scopes:
            raise PermissionDenied(
                f"This API key may not be used for {scope}, only for {', '.join(record.scopes)}.", code="scope_denied"
            )
        if record.networks is not None:
            address = origin(exchange.client, exchange.header(b"x-forwarded-for"), self._proxies)
            if not within(address, networks(record.networks)):
                raise PermissionDenied(
                    f"This API key may not be used from {address or 'an unknown address'}.", code="network_denied"
                )
        return record.caller

    async def find(self, digest: str) -> Caller:
        """Whose key this digest is, wherever it is used and for what."""
        return (await self._valid(digest)).caller

    async def _valid(self, digest: str) -> KeyRecord:
        record = self._snapshot.state.keys.get(digest) or await self._snapshot.lookup_key(digest)
        if record is None:
            raise Unauthenticated(f"The API key is not valid. {_REMEDY}")
        if record.expires_at is not None and record.expires_at <= time.time():
            raise Unauthenticated("The API key has expired.", code="expired_api_key")
        return record


def _secret(exchange: Exchange) -> bytes | None:
    """The key, from `Authorization: Bearer|Token KEY` or, as Anthropic's older clients send it, `x-api-key`."""
    given = exchange.header(b"authorization")
    if given is None:
        return exchange.header(b"x-api-key")
    scheme, _, secret = given.partition(b" ")
    secret = secret.strip()
    return secret if scheme.lower() in (b"bearer", b"token") and secret else None
