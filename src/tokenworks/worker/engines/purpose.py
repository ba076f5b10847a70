"""What weights were made for, and what comes of it: most write text, some of them about images; some make vectors of
texts, or rank them.
"""

from collections.abc import Sequence

from tokenworks.worker.engines.base import Setup
from tokenworks.worker.engines.gguf import Metadata

EMBEDDINGS, RERANK = "embeddings", "rerank"
MEASURES = (EMBEDDINGS, RERANK)
VISION = "vision"


def measures(setup: Setup, metadata: Metadata) -> str | None:
    """`embeddings`, `rerank`, or None for weights that write. The file says it; else the catalog does, by the first of
    its capabilities when it has no other."""
    if metadata.ranks:
        return RERANK
    told = setup.capabilities
    if metadata.embeds or (told and all(capability in MEASURES for capability in told)):
        return RERANK if told and told[0] == RERANK else EMBEDDINGS
    return None


def able(setup: Setup, measured: str | None, generates: Sequence[str], *, sees: bool = False) -> tuple[str, ...]:
    """Capabilities: those of the catalog but for images that it cannot see, and what the engine gives to every model of
    this kind."""
    known = [each for each in setup.capabilities if each != VISION]
    given = (measured,) if measured else (*generates, *((VISION,) if sees else ()))
    return tuple(dict.fromkeys((*known, *given)))
