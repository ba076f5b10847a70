"""What forward passes cost, as measured on this machine: seconds by tokens.

A step is one pass or more: llama.cpp computes neighbouring sequences together as long as each has a token left, and
what is left of the longer ones in further passes (llama_batch_allocr::split_equal). So a few drafts beside many
sequences cost a pass of their own.
"""

import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence

WEIGHT = 0.2
STRANGE = 2.0
"""A pass that takes so many times as long as it should was held up by something else; it counts as this much."""
STALE = 60.0
"""Seconds after which a figure is forgotten: the machine may have been busy, and only what is tried is measured."""
SLOPE = 0.35
"""What is taken for a further token where nothing was measured, as a share of what tokens cost before: a bold guess,
since a shy one would never be tried."""


class Cost:
    """`like` and `factor`: another one, and its multiple that this is before anything was measured."""

    def __init__(
        self, like: "Cost | None" = None, factor: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._like = like
        self._factor = factor
        self.now = clock
        self._known: dict[int, float] = {}
        self._when: dict[int, float] = {}
        self._sizes: list[int] = []

    def add(self, passes: Sequence[int], seconds: float) -> None:
        """Passes of so many tokens each took so long together."""
        now = self.now()
        for size in [size for size in self._sizes if now - self._when[size] > STALE]:
            self._sizes.remove(size)
            del self._known[size], self._when[size]
        expected = self.of(passes)
        off = min(seconds / expected, STRANGE) if expected else 0.0
        for size in set(passes):
            known = self._known.get(size)
            if not expected:
                self._known[size] = seconds / len(passes)
            elif known is None:
                self._known[size] = self.of([size]) * off
            else:
                self._known[size] = known * (1 + WEIGHT * (off - 1))
            if known is None:
                insort(self._sizes, size)
            self._when[size] = now

    def of(self, passes: Iterable[int]) -> float:
        """Seconds; 0 when nothing is known."""
        return sum(self._one(size) for size in passes)

    def _one(self, size: int) -> float:
        known, sizes = self._known, self._sizes
        if size in known:
            return known[size]
        if not sizes:
            return self._like.of([size]) * self._factor if self._like is not None else 0.0
        at = bisect_left(sizes, size)
        if at == 0:
            return known[sizes[0]] * (SLOPE + (1 - SLOPE) * size / sizes[0])
        low = sizes[at - 1]
        if at == len(sizes):
            return known[low] * (1 + SLOPE * (size - low) / low)
        high = sizes[at]
        return known[low] + (known[high] - known[low]) * (size - low) / (high - low)


def passes(rows: Sequence[tuple[str, int, int]]) -> list[int]:
    """(adapter, slot, tokens) of each sequence, in this order -> tokens of each pass."""
    found = []
    left = list(rows)
    while left:
        adapter, slot, least = left[0]
        count = 1
        while count < len(left) and left[count][:2] == (adapter, slot + count):
            least = min(least, left[count][2])
            count += 1
        found.append(least * count)
        rest = [(adapter, slot, tokens - least) for adapter, slot, tokens in left[:count] if tokens > least]
        left = [*rest, *left[count:]]
    return found
