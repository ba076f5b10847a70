"""Step 2 of a request: the key in its headers -> the caller. The cheapest refusal, before the body is read."""

import time
from hashlib import sha256

from tokenworks.core.caller import Caller
from tokenworks.core.errors import Unauthenticated
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.snapshot.records import KeyRecord
from tokenworks.snapshot.subscriber import Subscriber

LONGEST_KEY = 256
_REMEDY = "Send it as 'Authorization: Bearer sk-tw-...'; create one with 'tokenworks keys create'."


class Keys:
    def __init__(self, snapshot: Subscriber) -> None:
        self._snapshot = snapshot

    async def identify(self, exchange: Exchange) -> Caller:
        """Unauthenticated for no key, a wrong one or an expired one; Unavailable when that cannot be told now."""
        secret = _secret(exchange)
        if secret is None:
            raise Unauthenticated(f"No API key was given. {_REMEDY}", code="missing_api_key")
        if len(secret) > LONGEST_KEY:
            raise Unauthenticated(f"The API key is not valid. {_REMEDY}")
        # A key is 256 random bits, so a fast hash is enough, and looking its digest up leaks nothing by its timing.
        return await self.find(sha256(secret).hexdigest())

    async def find(self, digest: str) -> Caller:
        """The same for a key of which only the digest is at hand."""
        record = self._snapshot.state.keys.get(digest) or await self._snapshot.lookup_key(digest)
        if record is None:
            raise Unauthenticated(f"The API key is not valid. {_REMEDY}")
        if record.expires_at is not None and record.expires_at <= time.time():
            raise Unauthenticated("The API key has expired.", code="expired_api_key")
        return _caller(record)


def _secret(exchange: Exchange) -> bytes | None:
    """The key, from `Authorization: Bearer|Token KEY` or, as Anthropic's older clients send it, `x-api-key`."""
    given = exchange.header(b"authorization")
    if given is None:
        return exchange.header(b"x-api-key")
    scheme, _, secret = given.partition(b" ")
    secret = secret.strip()
    return secret if scheme.lower() in (b"bearer", b"token") and secret else None


def _caller(record: KeyRecord) -> Caller:
    models = frozenset(record.models) if record.models is not None else None
    return Caller(record.id, record.project_id, record.organization_id, models)
