"""Where a request comes from, when proxies that the operator trusts stand between."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=4096)
def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """ValueError names the one that is not in CIDR notation."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def within(address: Address | None, allowed: Sequence[Network]) -> bool:
    """An unknown address is in no network."""
    return address is not None and any(address in network for network in allowed)


def origin(peer: str, forwarded: bytes | None, proxies: Sequence[Network]) -> Address | None:
    """The nearest address that is no trusted proxy; None when it cannot be told.

    `X-Forwarded-For` grows to the right, and whoever is not trusted may have written all that stands left of him.
    """
    address = _parse(peer)
    if not proxies or forwarded is None:
        return address
    for text in reversed(forwarded.decode("latin-1").split(",")):
        if not within(address, proxies):
            return address
        address = _parse(text.strip())
    return address


def _parse(text: str) -> Address | None:
    """Also with a port, as some proxies write it. An IPv4 address in IPv6 clothes is the IPv4 address."""
    host = text.removeprefix("[").partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
