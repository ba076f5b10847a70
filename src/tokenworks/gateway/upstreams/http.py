"""Calls an upstream over HTTP and hands out its bytes. Knows connections, credentials and status codes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from tokenworks.client import Address
from tokenworks.core.errors import Fault, TokenworksError, UpstreamBroken, UpstreamTimeout, UpstreamUnavailable
from tokenworks.core.target import RouteLimits
from tokenworks.gateway.upstreams.prepare import Outgoing
from tokenworks.protocols.base import Codec
from tokenworks.snapshot.records import UpstreamRecord
from tokenworks.snapshot.sealing import unseal

KEEP_ALIVE_SECONDS = 4.0
"""Below the 5 s after which common servers close an idle connection: a request never meets that close half-way."""
LARGEST_ERROR = 64 * 1024
LARGEST_ANSWER = 64 * 1024 * 1024


class _Endpoint:
    """One upstream's connections and headers. `limits` are of the calls, not of the endpoint."""

    def __init__(self, record: UpstreamRecord, cluster_key: bytes) -> None:
        self.record = record
        self.address = Address.parse(record.base_url)
        self._credential = None
        if record.credential is not None:
            self._credential = unseal(cluster_key, record.id, record.credential)
        self._headers: dict[str, dict[str, str]] = {}
        self.session = aiohttp.ClientSession(
            connector=_connector(self.address),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
        )

    def headers(self, outgoing: Outgoing) -> dict[str, str]:
        codec = outgoing.codec
        known = self._headers.get(codec.name)
        if known is None:
            own = codec.headers(self._credential) if self._credential is not None else {}
            known = {"content-type": "application/json", "accept-encoding": "identity", **own}
            self._headers[codec.name] = known
        return {**known, **outgoing.headers} if outgoing.headers else known


def _connector(address: Address) -> aiohttp.BaseConnector:
    if address.socket is not None:
        return aiohttp.UnixConnector(address.socket, limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS)
    return aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ttl_dns_cache=30)


class Upstreams:
    """All connections of this gateway. `in_flight` counts running attempts by upstream id."""

    def __init__(self, cluster_key: bytes) -> None:
        self.in_flight: Counter[str] = Counter()
        self._cluster_key = cluster_key
        self._endpoints: dict[str, _Endpoint] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def call(self, upstream: UpstreamRecord, outgoing: Outgoing, limits: RouteLimits) -> AsyncIterator["Answer"]:
        """An answer that began with 200. Any other becomes the error it stands for."""
        endpoint = self._endpoint(upstream)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.connect)
        url = f"{endpoint.address.origin}{outgoing.path}" if outgoing.rooted else endpoint.address.url(outgoing.path)
        self.in_flight[upstream.id] += 1
        try:
            async with endpoint.session.post(
                url, data=outgoing.body, headers=endpoint.headers(outgoing), timeout=timeout, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise await _read_error(response, outgoing.codec, upstream.provider)
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
            self.in_flight[upstream.id] -= 1
            if not self.in_flight[upstream.id]:
                del self.in_flight[upstream.id]

    def _endpoint(self, record: UpstreamRecord) -> _Endpoint:
        known = self._endpoints.get(record.id)
        if known is not None:
            old = known.record
            if (old.base_url, old.credential) == (record.base_url, record.credential):
                return known
            self._retire(known)
        endpoint = self._endpoints[record.id] = _Endpoint(record, self._cluster_key)
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


async def _read_error(response: aiohttp.ClientResponse, codec: Codec, provider: str) -> TokenworksError:
    body = await response.content.read(LARGEST_ERROR)
    if response.status < 400:
        return UpstreamBroken(
            f"{provider} answered {response.status}, which is no answer.",
            provider=provider,
            upstream_status=response.status,
        )
    return codec.read_error(
        response.status, body, provider=provider, retry_after=_retry_after(response.headers.get("retry-after"))
    )


def _retry_after(text: str | None) -> float | None:
    """Seconds; a date is not worth parsing for a hint."""
    try:
        return max(float(text), 0.0) if text else None
    except ValueError:
        return None


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
