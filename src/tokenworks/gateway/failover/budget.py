"""How much may be tried again: a share of traffic, so that retries never become the outage."""

import random

SHARE = 0.2
RESERVE = 10.0
"""Retries that are possible without any traffic before."""
BASE, LONGEST = 0.1, 2.0
"""Seconds of the first back-off and of the longest."""


class RetryBudget:
    """Of one model. Every request earns a share of a retry, every retry (or hedge) spends one."""

    def __init__(self) -> None:
        self._left = RESERVE

    def earn(self) -> None:
        self._left = min(self._left + SHARE, RESERVE)

    def spend(self) -> bool:
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


def back_off(retry: int) -> float:
    """Seconds before retry number `retry` (from 0): doubling, with jitter so that no crowd comes back at once."""
    return random.uniform(0.5, 1.0) * min(BASE * (1 << retry), LONGEST)  # noqa: S311 - spreads load, keeps no secret
