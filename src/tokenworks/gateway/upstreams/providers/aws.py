"""Amazon Bedrock: requests are signed (Signature Version 4) with `ACCESS_KEY_ID:SECRET[:SESSION_TOKEN]`, or carry one
of Bedrock's own keys as a bearer."""

import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

import aiohttp

from tokenworks.core.errors import Fault, UpstreamRejected
from tokenworks.core.sigv4 import Credentials, Signer
from tokenworks.gateway.upstreams.providers.base import Sent
from tokenworks.snapshot.records import UpstreamRecord

SERVICE = "bedrock"
_PAIR = re.compile(r"([A-Z0-9]{16,128}):([A-Za-z0-9/+=]+)(?::(\S+))?")
_OWN = ("ABSK", "bedrock-api-key-")


class Aws:
    async def tell(self, sent: Sent, upstream: UpstreamRecord, secret: str, session: aiohttp.ClientSession) -> Sent:
        if secret.startswith(_OWN):
            return replace(sent, headers={**sent.headers, "authorization": f"Bearer {secret}"})
        pair = _PAIR.fullmatch(secret)
        if pair is None:
            raise UpstreamRejected(
                f"The key for {upstream.provider} is not of the form ACCESS_KEY_ID:SECRET[:SESSION_TOKEN].",
                code="upstream_authentication",
                provider=upstream.provider,
                fault=Fault.CREDENTIAL,
            )
        return sign(sent, upstream.region, Credentials(pair[1], pair[2], pair[3]), datetime.now(UTC))


def sign(sent: Sent, region: str, credentials: Credentials, now: datetime) -> Sent:
    url = urlsplit(sent.url)
    given = {"host": url.netloc, "content-type": sent.headers["content-type"]}
    digest = hashlib.sha256(sent.body).hexdigest()
    signed = Signer(credentials, region, SERVICE).sign("POST", url.path, {}, given, digest, now)
    return replace(sent, headers={**sent.headers, **signed})
