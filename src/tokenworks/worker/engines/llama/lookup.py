"""Guesses of what comes next, from what was there already: text repeats itself, above all where it is quoted or edited.

A guess is checked in the same forward pass as the last token, and sampling decides: answers are the same, token for
token. It costs a part of a step for each guessed token, so it is made only where guesses of late came true and few
others run.
"""

from collections.abc import Sequence

GRAM = 4
"""Tokens that must be the same for a guess."""
LONGEST = 6
WORTH = 0.45
"""Share of guesses that has to come true: a guessed token costs about a third of a step of its own on two cores."""
FEW = 2
"""Sequences in a step up to which there is time to spare; more of them use it themselves."""
MEMORY = 0.8
RETRY = 64
"""Tokens after which it is tried again."""


class Lookup:
    """For one sequence. `learn` its tokens as they come; `guess` gives what may follow the last one."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._places: dict[tuple[int, ...], int] = {}
        self._seen = GRAM - 1
        self._hits = WORTH
        self._silent = 0
        self.learn(tokens)

    def learn(self, tokens: Sequence[int]) -> None:
        """The sequence as it is now. Its last gram is left out until something follows it."""
        for end in range(self._seen, len(tokens) - 1):
            self._places[tuple(tokens[end + 1 - GRAM : end + 1])] = end + 1
        self._seen = max(self._seen, len(tokens) - 1)

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most so many tokens; a single one as long as guesses did not come true."""
        if self._hits < WORTH:
            self._silent += 1
            if self._silent < RETRY:
                return []
            self._silent, self._hits = 0, WORTH
        at = self._places.get(tuple(tokens[-GRAM:]))
        length = min(most, round(LONGEST * self._hits) if self._hits > WORTH else 1)
        return [] if at is None else list(tokens[at : at + length])

    def judge(self, guessed: int, true: int) -> None:
        """So many of the guessed tokens came."""
        if guessed:
            self._hits = MEMORY * self._hits + (1 - MEMORY) * true / guessed
