"""Whether the forward pass that runs is given up for somebody who has just come.

A crowd's step takes as long as its many sequences need, and whoever comes when it has just begun would wait for all of
it before a prompt of their own that takes a fraction. So it is stopped while it is young, and computed again after
theirs. What had been computed of it is lost: a bounded share of all time.
"""

import threading
from collections.abc import Callable

from tokenworks.worker.engines.llama.scheduling.scheduler import Scheduler
from tokenworks.worker.engines.llama.scheduling.sequence import Sequence, Work

SHARE = 1 / 32
"""Of the time spent computing, what may be lost."""
SAVED = 0.25
"""Seconds that may be lost in a row, after a time in which less was."""
YOUNG = 0.5
"""Share of its time until which a step is given up: beyond, its end is waited for sooner than it is done again."""


class Interrupting:
    """`stop(True)` stops the forward pass that runs. All but `came` is called by the thread that computes."""

    def __init__(self, scheduler: Scheduler, stop: Callable[[bool], None]) -> None:
        self._scheduler = scheduler
        self._stop = stop
        self._lock = threading.Lock()
        self._begun = self._until = 0.0
        self._left = 0.0
        """Seconds that may be lost."""

    def begin(self, works: list[Work], now: float) -> None:
        tokens = sum(work.size for work in works)
        with self._lock:
            self._begun = now
            self._until = now + min(self._left, YOUNG * self._scheduler.rate.seconds(tokens))

    def end(self, seconds: float, given_up: bool) -> None:
        """The step took so long."""
        with self._lock:
            self._until = 0.0
            self._stop(False)
        self._left = self._left - seconds if given_up else min(SAVED, self._left + SHARE * seconds)

    def came(self, sequence: Sequence, now: float) -> None:
        """It was just handed to the thread that computes. The scheduler does not change before `end`."""
        with self._lock:
            if now < self._until and self._scheduler.gives_way(sequence, now):
                self._until = 0.0
                self._stop(True)
