"""Numbers that are the same in every gateway and every version: a test holds some of them."""

import math
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b

_MASK = 2**64 - 1


def point(text: str) -> int:
    """63 bits."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) >> 1


_known = lru_cache(4096)(point)


def mixed(seed: int, name: str) -> int:
    """64 bits that tell nothing of those for another name (the finalizer of SplitMix64)."""
    bits = (seed ^ _known(name)) + 0x9E3779B97F4A7C15 & _MASK
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & _MASK
    return bits ^ bits >> 31


def bucket(seed: int, name: str, parts: int) -> int:
    """Below `parts`. Who is in the first p of them is in the first p + 1, too."""
    return mixed(seed, name) % parts


def chosen(seed: int, salt: str, weights: Mapping[str, int]) -> str:
    """One of the names, as often as its weight says. When a weight changes, only what that name wins or loses moves
    (weighted rendezvous hashing). At least one weight is above 0."""
    if len(weights) == 1:
        return next(iter(weights))
    best, least = "", math.inf
    for name, weight in weights.items():
        if weight:
            drawn = (mixed(seed, f"{salt}\n{name}") + 1) / 2**64
            score = -math.log(drawn) / weight
            if score < least:
                best, least = name, score
    return best
