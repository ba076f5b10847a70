"""Finds markers in text that comes in pieces: what may still become one is held back."""

from collections.abc import Sequence


def find(text: str, markers: Sequence[str]) -> tuple[int, str] | None:
    """(position, marker) of the first; of several at one position the longest."""
    found = [(text.find(marker), marker) for marker in markers]
    return min(((at, marker) for at, marker in found if at >= 0), key=lambda hit: (hit[0], -len(hit[1])), default=None)


def held(text: str, markers: Sequence[str]) -> int:
    """The length of the longest end of `text` that more text may turn into a marker."""
    longest = max(map(len, markers), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        end = text[-length:]
        if any(len(marker) > length and marker.startswith(end) for marker in markers):
            return length
    return 0
