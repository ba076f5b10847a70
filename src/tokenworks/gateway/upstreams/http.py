"""Calls an upstream over HTTP and hands out its bytes. Knows connections, credentials and status codes."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from tokenworks.client import Address
from tokenworks.core.errors import (
    Fault,
    TokenworksError,
    UpstreamBroken,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tokenworks.core.target import RouteLimits
from tokenworks.gateway.upstreams import quirks
from tokenworks.gateway.upstreams.images import Images
from tokenworks.gateway.upstreams.keyring import REST_SECONDS as KEYS_FAULTS
from tokenworks.gateway.upstreams.keyring import Keyring
from tokenworks.gateway.upstreams.prepare import Outgoing
from tokenworks.gateway.upstreams.providers import way
from tokenworks.gateway.upstreams.providers.base import Sent
from tokenworks.gateway.upstreams.waits import retry_after
from tokenworks.protocols.base import Codec, TwoCalls
from tokenworks.snapshot.records import CredentialRecord, OwnKeysRecord, UpstreamRecord
from tokenworks.snapshot.sealing import internal_token

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 4.0
"""Below the 5 s after which common servers close an idle connection: a request never meets that close half-way."""
_ANSWERED = (200, 201)
"""The second is what one that makes an object for each answer says."""
_HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}
LARGEST_ERROR = 64 * 1024
LARGEST_ANSWER = 64 * 1024 * 1024


class _Endpoint:
    """One upstream's connections."""

    def __init__(self, record: UpstreamRecord) -> None:
        self.record = record
        self.address = Address.parse(record.base_url)
        self.session = aiohttp.ClientSession(
            connector=_connector(self.address),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
        )


def _connector(address: Address) -> aiohttp.BaseConnector:
    if address.socket is not None:
        return aiohttp.UnixConnector(address.socket, limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS)
    return aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ttl_dns_cache=30)


class Upstreams:
    """All connections of this gateway. `in_flight` counts running attempts by upstream id. `images` are got for those
    that must not fetch any themselves; `image_hosts` may be on private networks."""

    def __init__(self, cluster_key: bytes, image_hosts: Collection[str] = ()) -> None:
        self.images = Images(image_hosts)
        self.in_flight: Counter[str] = Counter()
        self.keyring = Keyring(cluster_key)
        self._token = internal_token(cluster_key)
        self._endpoints: dict[str, _Endpoint] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def call(
        self,
        upstream: UpstreamRecord,
        outgoing: Outgoing,
        limits: RouteLimits,
        own: OwnKeysRecord | None = None,
        *,
        counted: bool = True,
    ) -> AsyncIterator["Answer"]:
        """An answer that began with 200. Any other becomes the error it stands for, once no key is left to try.

        `own`: the keys of a project that brought its own for this upstream; ours are not used then. Not `counted` is
        what is no work for it.
        """
        self.in_flight[upstream.id] += counted
        try:
            async with await self._begin(upstream, outgoing, limits, own) as response:
                yield Answer(response, upstream.provider)
        except aiohttp.ConnectionTimeoutError as error:
            raise UpstreamTimeout(
                f"{upstream.provider} did not accept a connection within {limits.connect:g} s.",
                provider=upstream.provider,
                code="connect_timeout",
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _network_error(error, upstream.provider) from error
        finally:
            self.in_flight[upstream.id] -= counted
            if not self.in_flight[upstream.id]:
                del self.in_flight[upstream.id]

    async def _begin(
        self, upstream: UpstreamRecord, outgoing: Outgoing, limits: RouteLimits, own: OwnKeysRecord | None
    ) -> aiohttp.ClientResponse:
        endpoint = self._endpoint(upstream)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect)
        keys = self.keyring.usable(upstream.credentials if own is None else own.of(upstream.id))
        for position in range(max(len(keys), 1)):
            key = keys[position] if keys else None
            try:
                sent = await self._sent(endpoint, upstream, outgoing, key, own)
                response = await endpoint.session.post(
                    URL(sent.url, encoded=True),
                    data=sent.body,
                    headers=sent.headers,
                    timeout=timeout,
                    allow_redirects=False,
                )
                if response.status in _ANSWERED:
                    return await _followed(response, outgoing, sent, endpoint.session, upstream, timeout)
                async with response:
                    error = await _read_error(response, outgoing.codec, upstream.provider)
            except UpstreamRejected as rejected:  # the key could not even be told
                error = rejected
            if own is not None and error.fault in KEYS_FAULTS:
                error.provider = None  # one project's account says nothing about the upstream's standing
            if own is not None and error.fault is Fault.CREDENTIAL:
                error.args = (f"{upstream.provider} refused the key that your project brought for it.",)
                error.message = error.args[0]
            if key is None or not self.keyring.failed(key, upstream, error) or position == len(keys) - 1:
                break
        raise error

    async def _sent(
        self,
        endpoint: _Endpoint,
        upstream: UpstreamRecord,
        outgoing: Outgoing,
        key: CredentialRecord | None,
        own: OwnKeysRecord | None,
    ) -> Sent:
        address = endpoint.address
        secret = None if key is None else self.keyring.secret(key, upstream, own)
        if upstream.local and address.socket is None:  # a worker on TCP answers nobody else
            secret = self._token
        told = {} if secret is None or upstream.auth else outgoing.codec.headers(secret)
        headers = {**_HEADERS, **told, **outgoing.headers}
        base, stream = address.origin if outgoing.rooted else address.url(""), bool(getattr(outgoing, "stream", False))
        sent = Sent(base, outgoing.path, outgoing.body, headers, outgoing.model, stream)
        if secret is not None and upstream.auth:
            return await way(upstream.auth).tell(sent, upstream, secret, endpoint.session)
        return sent

    def _endpoint(self, record: UpstreamRecord) -> _Endpoint:
        known = self._endpoints.get(record.id)
        if known is not None:
            if known.record.base_url == record.base_url:
                return known
            self._retire(known)
        if unknown := sorted(set(record.quirks) - quirks.KNOWN):
            log.warning("upstream %s: unknown quirks %s have no effect", record.id, ", ".join(unknown))
        endpoint = self._endpoints[record.id] = _Endpoint(record)
        return endpoint

    def _retire(self, endpoint: _Endpoint) -> None:
        """Close the connections of an upstream that moved once its running attempts have had their time."""
        task = asyncio.create_task(_close_later(endpoint.session))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        for endpoint in self._endpoints.values():
            await endpoint.session.close()


class Answer:
    """The bytes of an upstream's answer."""

    def __init__(self, response: aiohttp.ClientResponse, provider: str) -> None:
        self._response = response
        self._provider = provider

    @property
    def is_stream(self) -> bool:
        return self._response.content_type != "application/json"

    def chunks(self) -> AsyncIterator[bytes]:
        """As they come from the network."""
        return self._response.content.iter_any()

    async def read(self) -> bytes:
        """UpstreamBroken beyond LARGEST_ANSWER."""
        pieces, size = [], 0
        async for chunk in self._response.content.iter_any():
            pieces.append(chunk)
            size += len(chunk)
            if size > LARGEST_ANSWER:
                raise UpstreamBroken(f"{self._provider} answered more than {LARGEST_ANSWER} bytes.")
        return b"".join(pieces)


async def _followed(
    response: aiohttp.ClientResponse,
    outgoing: Outgoing,
    sent: Sent,
    session: aiohttp.ClientSession,
    upstream: UpstreamRecord,
    timeout: aiohttp.ClientTimeout,
) -> aiohttp.ClientResponse:
    """The answer, or the stream that it tells the address of. Our key is told to its own host only."""
    if not sent.stream or not isinstance(outgoing.codec, TwoCalls):
        return response
    async with response:
        body = await Answer(response, upstream.provider).read()
    try:
        url = URL(outgoing.codec.stream_url(body), encoded=True)
    except ValueError as error:
        raise UpstreamBroken(f"{upstream.provider} does not stream: {error}") from error
    headers = {"accept": "text/event-stream"}
    if url.origin() == URL(sent.base).origin():
        headers |= {name: value for name, value in sent.headers.items() if name == "authorization"}
    stream = await session.get(url, headers=headers, timeout=timeout, allow_redirects=False)
    if stream.status == 200:
        return stream
    async with stream:
        raise await _read_error(stream, outgoing.codec, upstream.provider)


async def _read_error(response: aiohttp.ClientResponse, codec: Codec, provider: str) -> TokenworksError:
    body = await response.content.read(LARGEST_ERROR)
    if response.status < 400:
        return UpstreamBroken(
            f"{provider} answered {response.status}, which is no answer.",
            provider=provider,
            upstream_status=response.status,
        )
    return codec.read_error(response.status, body, provider=provider, retry_after=retry_after(response.headers))


def _network_error(error: Exception, provider: str) -> TokenworksError:
    if isinstance(error, aiohttp.ClientConnectorError | ConnectionRefusedError | FileNotFoundError):
        return UpstreamUnavailable(
            f"{provider} cannot be reached: nothing answers at its address.", provider=provider, retry_after=1.0
        )
    return UpstreamBroken(
        f"{provider} broke the connection in the middle of its answer.", provider=provider, fault=Fault.CUT
    )


async def _close_later(session: aiohttp.ClientSession, seconds: float = 600.0) -> None:
    try:
        await asyncio.sleep(seconds)
    finally:
        await session.close()
