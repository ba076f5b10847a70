"""Echo's embeddings: words hashed to places of a vector, so that texts with words in common are near. Pure.

The same in every process, and of length one.
"""

import math
from hashlib import blake2b

from tokenworks.worker.engines.echo.words import split

DIMENSIONS = 64
MOST_DIMENSIONS = 4096


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    values = [0.0] * dimensions
    for word in split(text) or [""]:
        key = word.strip().casefold().encode("utf-8", "surrogatepass")
        number = int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
        values[number % dimensions] += 1.0 if number >> 63 else -1.0
    norm = math.sqrt(math.fsum(value * value for value in values))
    if not norm:  # two words that cancel each other out
        return [1.0, *values[1:]]
    return [value / norm for value in values]


def rank(query: str, documents: tuple[str, ...], dimensions: int = 1024) -> list[tuple[int, float]]:
    """(index, score between 0 and 1) in falling order of the score: the cosine of the vectors, nothing below 0."""
    asked = embed(query, dimensions)
    scores = [math.fsum(map(float.__mul__, asked, embed(document, dimensions))) for document in documents]
    ranked = [(index, min(max(score, 0.0), 1.0)) for index, score in enumerate(scores)]
    return sorted(ranked, key=lambda pair: -pair[1])
