"""Guesses of what comes next in a sequence, from what it says already: text repeats itself, above all where it is
quoted or edited."""

from collections.abc import Sequence

GRAM = 4
"""Tokens that must be the same for a guess."""


class Lookup:
    """For one sequence. `learn` its tokens as they come; `guess` gives what may follow the last one."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._places: dict[tuple[int, ...], int] = {}
        self._seen = GRAM - 1
        self._at: int | None = None
        """The place that is being repeated: as long as it goes on, a later one with the same gram is not better."""
        self.learn(tokens)

    def learn(self, tokens: Sequence[int]) -> None:
        """The sequence as it is now. Its last gram is left out until something follows it."""
        for end in range(self._seen, len(tokens) - 1):
            if self._at is not None:
                self._at = self._at + 1 if tokens[self._at] == tokens[end + 1] else None
            self._places[tuple(tokens[end + 1 - GRAM : end + 1])] = end + 1
        self._seen = max(self._seen, len(tokens) - 1)

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most so many tokens; what ends with the sequence is taken to go round."""
        if self._at is None:
            self._at = self._places.get(tuple(tokens[-GRAM:]))
        if self._at is None:
            return []
        found = list(tokens[self._at : self._at + most])
        while found and len(found) < most:
            found += found[: most - len(found)]
        return found
