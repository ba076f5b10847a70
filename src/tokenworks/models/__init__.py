"""Weights: which models exist (the catalog), where their files come from (sources), where they are kept (the cache).

Knows nothing of engines, processes or the network API. Importing it is cheap; a source's library is imported
when something is really downloaded.
"""

from tokenworks.models.cache import Cached
from tokenworks.models.catalog import DEFAULT_MODEL, Catalog, Entry, load_catalog
from tokenworks.models.errors import WeightsError
from tokenworks.models.progress import Progress
from tokenworks.models.weights import cached, fetch, remove

__all__ = [
    "DEFAULT_MODEL",
    "Cached",
    "Catalog",
    "Entry",
    "Progress",
    "WeightsError",
    "cached",
    "fetch",
    "load_catalog",
    "remove",
]
