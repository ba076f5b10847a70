"""Hosts that are told their key in a header of their own, `settings.header`; all other settings are headers, too."""

from dataclasses import replace

import aiohttp

from tokenworks.gateway.upstreams.providers.base import Sent
from tokenworks.snapshot.records import UpstreamRecord

_NO_HEADERS = ("header", "region")


class Header:
    async def tell(self, sent: Sent, upstream: UpstreamRecord, secret: str, session: aiohttp.ClientSession) -> Sent:
        settings = upstream.settings
        more = {name: value for name, value in settings.items() if name not in _NO_HEADERS}
        return replace(sent, headers={**sent.headers, **more, settings.get("header", "x-api-key"): secret})
