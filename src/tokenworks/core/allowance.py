"""How much of a limit a caller has left, as protocols tell it."""

from typing import NamedTuple


class Allowance(NamedTuple):
    """`kind`: requests | tokens | input_tokens | uncached_input_tokens | output_tokens. `window` and `resets_in` are
    seconds; `resets_in` None: it never fills up again by itself."""

    kind: str
    limit: int
    remaining: int
    window: int
    resets_in: float | None
