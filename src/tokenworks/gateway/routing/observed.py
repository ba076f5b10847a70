"""What this gateway has seen of each (upstream, model): sums that fade, so that the last minutes count most.

A sample of age t weighs 2^(-t / HALF_LIFE). Everything is kept as decayed sums, so one update is a few
multiplications and the memory does not grow with traffic.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tokenworks.core.usage import Usage

HALF_LIFE = 300.0
"""Seconds."""
LEAST = 0.01
"""Below this weight there is no memory left worth the name."""


@dataclass(slots=True)
class Seen:
    """Decayed sums of the answers of one (upstream, model). Rates are None where nothing was seen."""

    at: float = 0.0
    answers: float = 0.0
    first_tokens: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    prompt: float = 0.0
    cached: float = 0.0
    output: float = 0.0

    def fade(self, now: float) -> None:
        factor = 2.0 ** ((self.at - now) / HALF_LIFE)
        self.at = now
        for name in ("answers", "first_tokens", "tokens", "seconds", "prompt", "cached", "output"):
            setattr(self, name, getattr(self, name) * factor)

    @property
    def known(self) -> bool:
        return self.answers > LEAST

    @property
    def first_token(self) -> float | None:
        """Seconds, the mean."""
        return self.first_tokens / self.answers if self.known and self.first_tokens else None

    @property
    def throughput(self) -> float | None:
        """Tokens a second of one answer, after its first token."""
        return self.tokens / self.seconds if self.seconds > 0 else None

    @property
    def cached_share(self) -> float:
        return self.cached / self.prompt if self.prompt > LEAST else 0.0

    @property
    def output_per_answer(self) -> float | None:
        return self.output / self.answers if self.known else None


class Observed:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, str], Seen] = {}

    def of(self, upstream: str, model: str) -> Seen | None:
        return self._seen.get((upstream, model))

    def answered(self, upstream: str, model: str, usage: Usage, first_token: float, duration: float) -> None:
        """One whole answer. Seconds from when it was asked; `first_token` 0 where that could not be told."""
        now = self._clock()
        seen = self._seen.get((upstream, model))
        if seen is None:
            seen = self._seen[upstream, model] = Seen(now)
        seen.fade(now)
        seen.answers += 1.0
        seen.prompt += usage.prompt
        seen.cached += usage.cached_input
        seen.output += usage.output
        if first_token > 0:
            seen.first_tokens += first_token
            if usage.output > 1 and duration > first_token:
                seen.tokens += usage.output - 1
                seen.seconds += duration - first_token
