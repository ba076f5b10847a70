"""Providers that come with the product: config/catalog.toml, read by the code that reads a person's own file.

The rows lie here and not with the gateway that calls them, because control makes snapshot records of them and planes
never import each other (docs/decisions has the reason).
"""

from collections.abc import Collection
from functools import cache
from importlib import resources

from tokenworks.config.reader import read_providers
from tokenworks.config.records import ProviderConfig

FILE = "catalog.toml"


def known_providers(protocols: Collection[str]) -> dict[str, ProviderConfig]:
    """By name; the placeholders of their URLs are not filled. ConfigError when the shipped file is damaged."""
    return dict(_known(frozenset(protocols)))


@cache
def _known(protocols: frozenset[str]) -> dict[str, ProviderConfig]:
    text = resources.files("tokenworks.config").joinpath(FILE).read_text(encoding="utf-8")
    return read_providers(text, file=FILE, protocols=protocols)
