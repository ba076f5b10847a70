"""A circuit breaker: stops asking who fails again and again. It opens by failures and closes by a probe alone.

No request of a user is spent on finding out whether an upstream is back: while the circuit is open nothing passes, and
prober.py asks with a request of its own.
"""

import math

HALF_LIFE = 10.0
"""Seconds after which an outcome counts half."""
LEAST = 10.0
"""Outcomes, each as old as it is, before their share alone can open the circuit."""
SHARE = 0.5


class Breaker:
    """`open` after `most` failures in a row, or when half of many recent outcomes are failures. Times in seconds."""

    def __init__(self) -> None:
        self.open = False
        self.row = 0
        """Failures since the last success."""
        self._good = self._bad = 0.0
        self._at = 0.0

    def error_rate(self, now: float) -> float:
        """Of recent outcomes, the younger the more; 0 without any."""
        self._age(now)
        total = self._good + self._bad
        return self._bad / total if total > 0.01 else 0.0

    def succeeded(self, now: float) -> None:
        self._age(now)
        self._good += 1.0
        if not self.open:
            self.row = 0

    def failed(self, now: float, most: int) -> bool:
        """Whether this failure opened the circuit."""
        self._age(now)
        self._bad += 1.0
        self.row += 1
        if self.open:
            return False
        total = self._good + self._bad
        self.open = self.row >= most or (total >= LEAST and self._bad >= SHARE * total)
        return self.open

    def close(self) -> None:
        """A probe was answered: the past is forgotten, or the next failure would open the circuit again."""
        self.open = False
        self.row = 0
        self._good = self._bad = 0.0

    def _age(self, now: float) -> None:
        if now > self._at:
            keep = math.exp2((self._at - now) / HALF_LIFE)
            self._good *= keep
            self._bad *= keep
            self._at = now
