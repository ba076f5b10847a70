"""How many guessed tokens of each sequence to check, so that most tokens come per second."""

from collections.abc import Callable, Sequence

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16)
LONGEST = LENGTHS[-1]
MARGIN = 1.08
"""By how much it has to be better than none: less is noise, and trying costs."""
SURE = (0.0, 0.6, 0.85)
"""Where many run, those whose guess is less likely than this are tried without: they make the step dearer for all."""


def choose(reach: Sequence[Sequence[float]], seconds: Callable[[Sequence[int]], float]) -> tuple[list[int], float]:
    """Lengths, and the tokens per second that they are expected to give.

    `reach`: for each sequence, the chance of each guessed token to come; empty: no guess. `seconds`: of a step with so
    many guessed tokens for each; 0: not known yet, then there are none.
    """
    none = [0] * len(reach)
    bare = seconds(none)
    if not bare:
        return none, 0.0
    best, usual = none, len(reach) / bare
    if sum(map(sum, reach)) <= (MARGIN - 1) * len(reach):
        return none, usual
    rate = usual * MARGIN
    longest = max(map(len, reach))
    for sure in SURE if len(reach) > 1 else SURE[:1]:
        usable = [sum(chance >= sure for chance in row) for row in reach]
        for length in LENGTHS:
            lengths = [min(length, each) for each in usable]
            tokens = len(reach) + sum(sum(row[:each]) for row, each in zip(reach, lengths, strict=True))
            if (found := tokens / seconds(lengths)) > rate:
                best, rate = lengths, found
            if length >= longest:
                break
    return best, rate if best is not none else usual
