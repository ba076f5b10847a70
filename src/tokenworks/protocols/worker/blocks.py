"""The names of blocks of tokens, by which a router knows what an engine holds: a hash of the block and all before it.

Two engines give the same block the same name when they have the cluster's token in common, so that a router can tell
who holds most of a prompt. Whose tokens they are is part of the name: nobody can look for another tenant's. A collision
of two names in 2^64 sends a request to the wrong engine, which computes what it lacks.
"""

from array import array
from collections.abc import Sequence
from hashlib import blake2b

BLOCK = 16
"""Tokens. A block has a name when it is full."""
_NAME = 8
"""Bytes of a name: an unsigned little-endian number."""
MOST_KEY = 64


def root(secret: str, tenant: str, adapter: str) -> int:
    """What a tenant's first block hangs on. `adapter`: of the weights; "" for the weights as they are."""
    key = secret.encode()[:MOST_KEY]
    return _number(blake2b(f"{tenant}\0{adapter}".encode(), digest_size=_NAME, key=key).digest())


def names(parent: int, tokens: Sequence[int]) -> list[int]:
    """Of the full blocks of `tokens`, the first of which follows the block called `parent`."""
    raw = array("I", tokens).tobytes()
    before, found = parent.to_bytes(_NAME, "little"), []
    for begin in range(0, len(tokens) // BLOCK * BLOCK * 4, BLOCK * 4):
        before = blake2b(before + raw[begin : begin + BLOCK * 4], digest_size=_NAME).digest()
        found.append(_number(before))
    return found


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little")
