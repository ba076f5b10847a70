"""What one way of addressing a provider can do."""

from dataclasses import dataclass
from typing import Protocol

import aiohttp

from tokenworks.snapshot.records import UpstreamRecord


@dataclass(slots=True)
class Sent:
    """One POST, before the key is told: `base` is the upstream's URL, `path` is encoded and may have a query."""

    base: str
    path: str
    body: bytes
    headers: dict[str, str]
    model: str
    stream: bool

    @property
    def url(self) -> str:
        return f"{self.base}{self.path}"


class Way(Protocol):
    async def tell(self, sent: Sent, upstream: UpstreamRecord, secret: str, session: aiohttp.ClientSession) -> Sent:
        """The same, as this provider wants it. UpstreamRejected when the key cannot be one of its keys."""
        ...
