"""How much output a key's requests to a model usually take: the size of a reservation that holds 95 % of them.

Small and bounded: the keys seen last, each with a histogram of 41 counters that is halved when it is full, so that
what was long ago counts less and less.
"""

from array import array
from collections import OrderedDict

REMEMBERED = 10_000
FULL = 400
ENOUGH = 10
"""Before so many answers nothing is said."""
QUANTILE = 0.95
_STEPS = 2
"""Buckets for each doubling: a learned size is at most half above the true one."""
_BUCKETS = 20 * _STEPS + 1


class _Outputs:
    __slots__ = ("counts", "seen", "size")

    def __init__(self) -> None:
        self.counts = array("H", bytes(2 * _BUCKETS))
        self.seen = 0
        self.size: int | None = None

    def note(self, tokens: int) -> None:
        self.counts[_bucket(tokens)] += 1
        self.seen += 1
        if self.seen >= FULL:
            for at, count in enumerate(self.counts):
                self.counts[at] = count // 2
            self.seen = sum(self.counts)
        self.size = self._quantile() if self.seen >= ENOUGH else None

    def _quantile(self) -> int:
        wanted = QUANTILE * self.seen
        for at, count in enumerate(self.counts):
            wanted -= count
            if wanted <= 0:
                return _top(at)
        return _top(_BUCKETS - 1)


class Learned:
    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], _Outputs] = OrderedDict()

    def note(self, key_id: str, model: str, tokens: int) -> None:
        """One answer's output, of one choice."""
        outputs = self._known.get((key_id, model))
        if outputs is None:
            outputs = self._known[key_id, model] = _Outputs()
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end((key_id, model))
        outputs.note(tokens)

    def size(self, key_id: str, model: str) -> int | None:
        """Tokens that 95 % of the answers stay within; None while that is not known."""
        outputs = self._known.get((key_id, model))
        return None if outputs is None else outputs.size


def _bucket(tokens: int) -> int:
    """0 for at most one token; then two for each doubling: up to 1.5 times and up to 2 times a power of two."""
    if tokens <= 1:
        return 0
    power = (tokens - 1).bit_length() - 1
    upper = tokens * 2 > 3 << power
    return min(1 + power * _STEPS + upper, _BUCKETS - 1)


def _top(bucket: int) -> int:
    if bucket == 0:
        return 1
    power, upper = divmod(bucket - 1, _STEPS)
    return 2 << power if upper else max(3 << power >> 1, 2)
