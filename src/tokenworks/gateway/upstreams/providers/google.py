"""Google Vertex AI: a service account's key signs a JWT, which is exchanged for an access token of an hour.

`settings.token_url` replaces Google's address. The address that the key file itself names is not asked: key files come
from tenants, too. https://developers.google.com/identity/protocols/oauth2/service-account#httprest
"""

import asyncio
import base64
import json
import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import aiohttp

from tokenworks.core.errors import Fault, UpstreamRejected, UpstreamUnavailable
from tokenworks.gateway.upstreams.providers.base import Sent
from tokenworks.snapshot.records import UpstreamRecord

TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
VALID_SECONDS = 3600
EARLY_SECONDS = 120.0
TIMEOUT = aiohttp.ClientTimeout(total=10)
MESSAGES_VERSION = "vertex-2023-10-16"


class Google:
    """A secret that is no JSON is an access token already."""

    def __init__(self) -> None:
        self._tokens: dict[str, tuple[float, str]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def tell(self, sent: Sent, upstream: UpstreamRecord, secret: str, session: aiohttp.ClientSession) -> Sent:
        token = await self._token(upstream, secret, session) if secret.lstrip().startswith("{") else secret
        return replace(sent, headers={**sent.headers, "authorization": f"Bearer {token}"})

    async def _token(self, upstream: UpstreamRecord, secret: str, session: aiohttp.ClientSession) -> str:
        lock = self._asking.setdefault(secret, asyncio.Lock())
        async with lock:
            until, token = self._tokens.get(secret, (0.0, ""))
            if time.monotonic() >= until:
                seconds, token = await _exchange(upstream, secret, session)
                self._tokens[secret] = (time.monotonic() + max(seconds - EARLY_SECONDS, 0.0), token)
            return token


class GoogleMessages(Google):
    """Anthropic's models there: the model and the version of the protocol change places."""

    async def tell(self, sent: Sent, upstream: UpstreamRecord, secret: str, session: aiohttp.ClientSession) -> Sent:
        verb = "streamRawPredict" if sent.stream else "rawPredict"
        members = json.loads(sent.body)
        members.pop("model", None)
        body = json.dumps({"anthropic_version": MESSAGES_VERSION, **members}, separators=(",", ":")).encode()
        path = f"/{quote(sent.model, safe='@')}:{verb}"
        return await super().tell(replace(sent, path=path, body=body), upstream, secret, session)


async def _exchange(upstream: UpstreamRecord, secret: str, session: aiohttp.ClientSession) -> tuple[float, str]:
    """(for how many seconds, the token)"""
    url = upstream.settings.get("token_url", TOKEN_URL)
    form = {"grant_type": GRANT, "assertion": assertion(upstream, secret, int(time.time()))}
    try:
        async with session.post(url, data=form, timeout=TIMEOUT, allow_redirects=False) as response:
            said = await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise UpstreamUnavailable(
            f"{upstream.provider} gives no access token: {url} does not answer.", provider=upstream.provider
        ) from error
    if not isinstance(said, dict) or not isinstance(said.get("access_token"), str):
        raise _refused(upstream, "its service account is refused")
    return float(said.get("expires_in", VALID_SECONDS)), said["access_token"]


def assertion(upstream: UpstreamRecord, secret: str, now: int) -> str:
    """The signed JWT. UpstreamRejected when the key file is none."""
    from cryptography.hazmat.primitives.asymmetric.padding import (
        PKCS1v15,  # as in snapshot.sealing: costs others too much
    )
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        account = json.loads(secret)
        key = load_pem_private_key(account["private_key"].encode(), None)
        issuer = account["client_email"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused(upstream, "its key is no service account's key file") from error
    if not isinstance(key, RSAPrivateKey):
        raise _refused(upstream, "its service account's key is not an RSA key")
    head = {"alg": "RS256", "typ": "JWT", "kid": account.get("private_key_id", "")}
    url = upstream.settings.get("token_url", TOKEN_URL)
    claims = {"iss": issuer, "scope": SCOPE, "aud": url, "iat": now, "exp": now + VALID_SECONDS}
    signed = f"{_encoded(head)}.{_encoded(claims)}"
    return f"{signed}.{_base64(key.sign(signed.encode(), PKCS1v15(), SHA256()))}"


def _encoded(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _refused(upstream: UpstreamRecord, why: str) -> UpstreamRejected:
    return UpstreamRejected(
        f"{upstream.provider} cannot be called: {why}.",
        code="upstream_authentication",
        provider=upstream.provider,
        fault=Fault.CREDENTIAL,
    )
