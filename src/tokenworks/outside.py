"""URLs that callers name, of webhooks and of images: they must not reach what only this machine can reach.

The addresses of a host name are checked after they were resolved, and the connection goes to the checked address:
a name that resolves to something else a moment later gains nothing.
"""

import ipaddress
import socket
from collections.abc import Collection
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from tokenworks.core.errors import InvalidRequest

LONGEST_URL = 2000
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Forbidden(OSError):
    """The address is not one of the public internet."""


def check_url(url: str, allowed: Collection[str], *, what: str = "The webhook", param: str = "webhook") -> None:
    """InvalidRequest for a URL that can never be called. A name is judged when it is resolved."""
    if (why := _why_not(url, allowed)) is not None:
        raise InvalidRequest(f"{what} cannot be called: {why}.", param=param)


def _why_not(url: str, allowed: Collection[str]) -> str | None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        return f"it is no URL ({error})"
    if parts.scheme not in ("http", "https") or not host:
        return "only http:// and https:// URLs with a host are called"
    if len(url) > LONGEST_URL or not url.isprintable() or " " in url:
        return f"it must be at most {LONGEST_URL} printable characters without spaces"
    if parts.username is not None or port == 0:
        return "it must name a host and no user"
    if host not in allowed and _is_forbidden(host):
        return f"{host} is not an address of the public internet"
    return None


def _is_forbidden(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return not is_public(host)
    except ValueError:
        # Other writings of an IPv4 address (127.1, 0x7f.1, 2130706433) are addresses too.
        try:
            return not is_public(socket.inet_ntoa(socket.inet_aton(host)))
        except (OSError, UnicodeEncodeError):
            return False


def is_public(text: str) -> bool:
    """Also looks at the IPv4 address that an IPv6 one stands for. ValueError when it is no address."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_global(inner)
    return _is_global(address)


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_global and not (address.is_multicast or address.is_reserved)


class PublicResolver(AbstractResolver):
    """Hands out only addresses of the public internet, except for the `allowed` hosts."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = allowed
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if host in self._allowed:
            return found
        public = [each for each in found if is_public(each["host"])]
        if not public:
            raise Forbidden(f"{host} resolves to no address of the public internet")
        return public

    async def close(self) -> None:
        await self._inner.close()


def connector(allowed: Collection[str]) -> aiohttp.TCPConnector:
    """Without a cache of names, and without keeping connections: each delivery is checked anew."""
    return aiohttp.TCPConnector(
        resolver=PublicResolver(allowed), use_dns_cache=False, force_close=True, family=socket.AF_UNSPEC
    )
