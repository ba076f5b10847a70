"""What this gateway knows about the health of (upstream, model): learned from attempts, read by whoever plans.

`Health.standing(upstream, model)` is all a planner needs: whether the circuit is open, the error rate, percentiles of
the time to first token; `Health.paused(upstream)` tells for how long an upstream wants to be left alone.
"""

import time
from collections import deque
from collections.abc import Callable

from tokenworks.core.errors import Fault, TokenworksError
from tokenworks.core.target import Target
from tokenworks.gateway.failover.breaker import Breaker

SAMPLES = 128
LEAST_SAMPLES = 20
FRESH = 16
"""Percentiles are computed again after so many new samples."""
TRIPPING = frozenset({Fault.OVERLOAD, Fault.BROKEN, Fault.NETWORK, Fault.GARBLED, Fault.SILENT, Fault.CUT})
"""Failures that say something about the upstream's health. A rate limit is none."""
AVOID_SECONDS = 30.0
"""How long who refused our credential, or whose quota is used up, is only asked when nobody else can be."""
LONGEST_PAUSE = 600.0


class Standing:
    """Of one (upstream, model)."""

    def __init__(self) -> None:
        self.breaker = Breaker()
        self._first_tokens: deque[float] = deque(maxlen=SAMPLES)
        self._sorted: list[float] = []
        self._new = 0

    def answered(self, now: float, first_token: float) -> None:
        """`first_token` in seconds; 0 where the answer had none that could be told."""
        self.breaker.succeeded(now)
        if first_token > 0:
            self._first_tokens.append(first_token)
            self._new += 1

    def first_token(self, percentile: float) -> float | None:
        """Seconds; None before enough was seen."""
        if len(self._first_tokens) < LEAST_SAMPLES:
            return None
        if self._new >= FRESH or not self._sorted:
            self._new, self._sorted = 0, sorted(self._first_tokens)
        return self._sorted[min(int(percentile * len(self._sorted)), len(self._sorted) - 1)]


class Health:
    """`opened(target, task)` is called when a circuit opens: who fails, and at what."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.opened: Callable[[Target, type], None] = lambda target, task: None
        self.noted: Callable[[str, float], None] = lambda upstream, seconds: None
        """Called when an upstream asked for a pause: other gateways may want to know."""
        self._clock = clock
        self._standings: dict[tuple[str, str], Standing] = {}
        self._pauses: dict[str, float] = {}
        self._avoided: dict[str, float] = {}

    def standing(self, upstream: str, model: str) -> Standing:
        key = (upstream, model)
        known = self._standings.get(key)
        if known is None:
            known = self._standings[key] = Standing()
        return known

    def is_open(self, target: Target) -> bool:
        known = self._standings.get((target.upstream, target.model))
        return known is not None and known.breaker.open

    def first_token(self, target: Target, percentile: float) -> float | None:
        """Seconds; None before enough was seen."""
        known = self._standings.get((target.upstream, target.model))
        return known.first_token(percentile) if known else None

    def error_rate(self, upstream: str, model: str) -> float:
        known = self._standings.get((upstream, model))
        return known.breaker.error_rate(self._clock()) if known else 0.0

    def paused(self, upstream: str) -> float:
        """Seconds for which it wants no requests; 0 mostly."""
        return self._rest(self._pauses, upstream) if self._pauses else 0.0

    def is_avoided(self, upstream: str) -> bool:
        return bool(self._avoided) and self._rest(self._avoided, upstream) > 0

    def pause(self, upstream: str, seconds: float) -> None:
        """It asked for it, here or on another gateway."""
        until = self._clock() + min(seconds, LONGEST_PAUSE)
        self._pauses[upstream] = max(self._pauses.get(upstream, 0.0), until)

    def answered(self, target: Target, first_token: float) -> None:
        self.standing(target.upstream, target.model).answered(self._clock(), first_token)
        if self._avoided:
            self._avoided.pop(target.upstream, None)

    def failed(self, target: Target, error: TokenworksError, task: type, most: int) -> None:
        """`most` failures in a row open the circuit. 0: nothing is remembered, every request finds out for itself."""
        fault = error.fault
        if not most:
            return
        if fault is Fault.RATE_LIMIT and error.retry_after:
            self.pause(target.upstream, error.retry_after)
            self.noted(target.upstream, error.retry_after)
        elif fault in (Fault.CREDENTIAL, Fault.QUOTA):
            self._avoided[target.upstream] = self._clock() + AVOID_SECONDS
        elif fault in TRIPPING and self.standing(target.upstream, target.model).breaker.failed(self._clock(), most):
            self.opened(target, task)

    def _rest(self, times: dict[str, float], upstream: str) -> float:
        until = times.get(upstream)
        if until is None:
            return 0.0
        rest = until - self._clock()
        if rest <= 0:
            del times[upstream]
            return 0.0
        return rest
