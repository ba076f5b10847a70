"""Providers that are told their key, or addressed, otherwise than their protocol says, chosen by `UpstreamRecord.auth`.

One file for each way. Everything else about a provider is a row of config/catalog.toml.
"""

from functools import cache
from importlib import import_module

from tokenworks.gateway.upstreams.providers.base import Way

WAYS = {
    "header": "tokenworks.gateway.upstreams.providers.header:Header",
    "aws": "tokenworks.gateway.upstreams.providers.aws:Aws",
    "google": "tokenworks.gateway.upstreams.providers.google:Google",
    "google_messages": "tokenworks.gateway.upstreams.providers.google:GoogleMessages",
    "azure": "tokenworks.gateway.upstreams.providers.azure:Azure",
    "azure_deployments": "tokenworks.gateway.upstreams.providers.azure:AzureDeployments",
}


@cache
def way(name: str) -> Way:
    """ValueError with the known names for any other."""
    try:
        module, _, attribute = WAYS[name].partition(":")
    except KeyError:
        raise ValueError(f"unknown auth {name!r}; known: {', '.join(sorted(WAYS))}") from None
    made: Way = getattr(import_module(module), attribute)()
    return made
