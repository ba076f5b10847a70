"""How long to wait before the next try."""

FIRST = 0.2
LONGEST = 10.0
STEADY = 60.0
"""Seconds: a life this long starts the row anew."""


class Backoff:
    def __init__(self) -> None:
        self._pause = FIRST

    def next(self, lived: float) -> float:
        """Seconds to pause after a life of `lived` seconds: doubling while lives stay short."""
        if lived >= STEADY:
            self._pause = FIRST
        pause, self._pause = self._pause, min(self._pause * 2, LONGEST)
        return pause
