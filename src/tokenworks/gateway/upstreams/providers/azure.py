"""Azure OpenAI: the key is told in `api-key`; a token of Entra ID, which is a JWT, as a bearer.

Its first API has the deployment's name in the path and a version in the query, `settings.api_version`:
https://learn.microsoft.com/azure/ai-services/openai/reference
"""

from dataclasses import replace
from urllib.parse import quote

import aiohttp

from tokenworks.gateway.upstreams.providers.base import Sent
from tokenworks.snapshot.records import UpstreamRecord

API_VERSION = "2024-10-21"


class Azure:
    async def tell(self, sent: Sent, upstream: UpstreamRecord, secret: str, session: aiohttp.ClientSession) -> Sent:
        told = {"authorization": f"Bearer {secret}"} if secret.startswith("eyJ") else {"api-key": secret}
        return replace(sent, headers={**sent.headers, **told})


class AzureDeployments(Azure):
    async def tell(self, sent: Sent, upstream: UpstreamRecord, secret: str, session: aiohttp.ClientSession) -> Sent:
        version = quote(upstream.settings.get("api_version", API_VERSION), safe="")
        path = f"/{quote(sent.model, safe='')}{sent.path}?api-version={version}"
        return await super().tell(replace(sent, path=path), upstream, secret, session)
