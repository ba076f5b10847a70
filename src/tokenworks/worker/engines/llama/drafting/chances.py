"""How likely it is that a guess comes true: by how many guessed tokens came true just before it.

The first token of a repetition is a gamble, the tenth is nearly sure. Guesses that were not checked are judged as well,
by what came, so that this is known without any cost.
"""

from bisect import bisect_right
from collections.abc import Sequence

RUNS = (1, 2, 3, 4, 6, 9, 16)
"""Lengths of what came true before, at which another chance is kept."""
FIRST = (0.35, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)
"""What is taken for them before anything is known."""
DOUBT = 4
"""Tokens that this counts for."""
MEMORY = 64
"""Tokens over which a chance is averaged."""


class Chances:
    """Of one kind of guess under one key."""

    def __init__(self) -> None:
        self._chances = list(FIRST)
        self._seen = [0] * len(FIRST)

    def judge(self, run: int, guess: Sequence[int], came: Sequence[int]) -> int:
        """`guess` was made after `run` tokens that came true; gives the length of the run now."""
        for guessed, token in zip(guess, came, strict=False):
            at = bisect_right(RUNS, run)
            true = guessed == token
            self._seen[at] = min(self._seen[at] + 1, MEMORY)
            self._chances[at] += (true - self._chances[at]) / (self._seen[at] + DOUBT)
            if not true:
                return 0
            run += 1
        return run

    def reach(self, run: int, length: int) -> list[float]:
        """For each of so many guessed tokens: the chance that it and all before it come true."""
        found, chance = [], 1.0
        for more in range(length):
            chance *= self._chances[bisect_right(RUNS, run + more)]
            found.append(chance)
        return found
