"""Who is tried next, and when: the rules for each kind of failure, and one request's way through its targets."""

import asyncio
from dataclasses import dataclass

from tokenworks.core.errors import (
    CallerError,
    ContextLengthExceeded,
    Fault,
    TokenworksError,
    UpstreamOverloaded,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tokenworks.core.target import Target
from tokenworks.gateway.failover.budget import RetryBudget, back_off
from tokenworks.gateway.failover.health import Health
from tokenworks.gateway.failover.route import Route
from tokenworks.gateway.failover.windows import TooLong, told

LONGEST_WAIT = 5.0
"""Seconds for which a request is held back because all its upstreams want to be left alone."""
OF_KEYS = frozenset({Fault.CREDENTIAL, Fault.QUOTA, Fault.RATE_LIMIT})
"""What is wrong with a key: of a project that brought its own it says nothing to others."""
PROBE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Rule:
    """Whether another target may do better, and whether the same one may after a while."""

    elsewhere: bool
    again: bool


RULES = {
    Fault.OURS: Rule(elsewhere=False, again=False),
    Fault.CALLER: Rule(elsewhere=False, again=False),
    Fault.CONTENT_POLICY: Rule(elsewhere=False, again=False),
    Fault.SLOW: Rule(elsewhere=False, again=False),
    Fault.CONTEXT_LENGTH: Rule(elsewhere=True, again=False),
    Fault.CREDENTIAL: Rule(elsewhere=True, again=False),
    Fault.QUOTA: Rule(elsewhere=True, again=False),
    Fault.UNSUITABLE: Rule(elsewhere=True, again=False),
    Fault.SILENT: Rule(elsewhere=True, again=False),
    Fault.RATE_LIMIT: Rule(elsewhere=True, again=True),
    Fault.OVERLOAD: Rule(elsewhere=True, again=True),
    Fault.BROKEN: Rule(elsewhere=True, again=True),
    Fault.NETWORK: Rule(elsewhere=True, again=True),
    Fault.GARBLED: Rule(elsewhere=True, again=True),
    Fault.CUT: Rule(elsewhere=True, again=True),
}


class Turns:
    """Of one request. Each target once in their order, then again those that may do better, within the retries of the
    policy and the budget of the model. Nobody waits beyond the route's total limit."""

    def __init__(self, route: Route, health: Health, budget: RetryBudget) -> None:
        self.begun = asyncio.get_running_loop().time()
        self._route = route
        self._health = health
        self._budget = budget
        self._untried = list(route.targets)
        self._again: list[tuple[Target, float]] = []
        """Those that may be asked again, and the seconds they asked for."""
        self._retries = 0
        self._over = False
        self.errors: list[TokenworksError] = []
        self._error: TokenworksError | None = None
        self._lost: TokenworksError | None = None
        self._most = route.model.policy.breaker
        self._too_long = TooLong()

    @property
    def remaining(self) -> float:
        """Seconds of the route's total limit."""
        return self.begun + self._route.targets[0].limits.total - asyncio.get_running_loop().time()

    def failed(self, target: Target, error: TokenworksError) -> None:
        """An attempt on `target` has failed."""
        rule = RULES[error.fault]
        self.errors.append(error)
        self.noted(target, error)
        # Who is asked after a prompt was too long may have room for it: another time is what the caller should try.
        outgrown = isinstance(self._error, ContextLengthExceeded)
        if not isinstance(self._error, CallerError) or (
            outgrown and (rule.again or error.fault is Fault.CONTEXT_LENGTH)
        ):
            self._error = error
        self._over = self._over or not rule.elsewhere
        if error.fault is Fault.CONTEXT_LENGTH:
            self._outgrown(target, error)
        if rule.again:
            self._again.append((target, error.retry_after or 0.0))

    def noted(self, target: Target, error: TokenworksError) -> None:
        """What it says of the target's health, however it matters to this request."""
        if error.provider is not None and not (error.fault in OF_KEYS and self._route.brought(target.upstream)):
            self._health.failed(target, error, type(self._route.asked.request.task), self._most)

    def _outgrown(self, target: Target, error: TokenworksError) -> None:
        """Nobody is asked whose window is known to be too small, too, nor the same model again where nobody knows; who
        is known to be large enough comes first."""
        said = told(error.message)
        too_long = self._too_long = TooLong(target.window or said.window, said.wanted).after(self._too_long)
        fits = {id(other): too_long.fits(other.window) for other in self._route.targets}

        def may(other: Target) -> bool:
            return other.model != target.model if fits[id(other)] is None else bool(fits[id(other)])

        self._untried = sorted(filter(may, self._untried), key=lambda other: not fits[id(other)])
        self._again = [(other, asked) for other, asked in self._again if may(other)]

    def lost(self, error: TokenworksError, *, over: bool) -> None:
        """It broke in the middle of a stream: that is what the caller is told, unless somebody goes on with it."""
        self._lost = self._lost or error
        self._over = self._over or over

    def again_at_once(self, target: Target) -> None:
        """It may be asked otherwise."""
        self._untried.insert(0, target)

    async def next(self) -> Target:
        """Raises the error of the caller's request when there is nobody left to try, or no time."""
        while True:
            if self._over or self.remaining <= 0:
                raise self._given_up()
            if (target := self.spare()) is not None:
                return target
            later, wait = self._after_a_wait()
            if later is None or wait >= self.remaining:
                raise self._given_up()
            target = later
            await asyncio.sleep(wait)
            if not self._health.is_open(target) and not self._health.paused(target.upstream):
                self._untried = [other for other in self._untried if other is not target]
                return target

    def spare(self) -> Target | None:
        """A target that was not tried yet and may be now: those in good standing first."""
        health, best = self._health, None
        for target in self._untried:
            if health.is_open(target) or health.paused(target.upstream):
                continue
            if not health.is_avoided(target.upstream):
                best = target
                break
            best = best or target
        if best is not None:
            self._untried.remove(best)
        return best

    def others(self) -> int:
        """How many more could be tried at once."""
        return sum(not self._health.is_open(t) and not self._health.paused(t.upstream) for t in self._untried)

    def _after_a_wait(self) -> tuple[Target | None, float]:
        """Who can be tried soonest, and in how many seconds."""
        waits: list[tuple[float, int, Target]] = []
        for target in self._untried:
            if not self._health.is_open(target):
                waits.append((self._health.paused(target.upstream), len(waits), target))
        retry = self._retries < self._route.model.policy.retries and bool(self._again)
        if retry:
            for target, asked in self._again:
                if not self._health.is_open(target):
                    pause = max(back_off(self._retries), asked, self._health.paused(target.upstream))
                    waits.append((pause, len(waits), target))
        waits = [each for each in waits if each[0] <= LONGEST_WAIT]
        if not waits:
            return None, 0.0
        wait, _, target = min(waits)
        if target not in self._untried:
            if not self._budget.spend():
                return None, 0.0
            self._retries += 1
            self._again = [(other, asked) for other, asked in self._again if other is not target]
        return target, wait

    def _given_up(self) -> TokenworksError:
        if self._lost is not None:
            if self.errors[-1].message != self._lost.message:
                self._lost.message += f" Nobody else could go on with it: {self.errors[-1].message}"
            return self._lost
        if self._error is not None:
            largest = max((each.window for each in self._route.targets if each.window), default=0)
            if isinstance(self._error, ContextLengthExceeded) and largest and str(largest) not in self._error.message:
                self._error.message += f" The largest context of '{self._route.model.name}' is {largest} tokens."
            return self._error
        if self.remaining <= 0:
            return UpstreamTimeout("The request's time was over before anybody was asked.", fault=Fault.SLOW)
        target = self._route.targets[0]
        provider = self._route.upstreams[target.upstream].provider
        pause = max((self._health.paused(each.upstream) for each in self._route.targets), default=0.0)
        if pause:
            return UpstreamOverloaded(
                f"{provider} wants no more requests for {pause:.0f} s.",
                provider=provider,
                retry_after=pause,
                fault=Fault.RATE_LIMIT,
            )
        return UpstreamUnavailable(
            f"{provider} has failed again and again. It is being checked, and asked again as soon as it answers.",
            provider=provider,
            retry_after=PROBE_SECONDS,
            code="upstream_circuit_open",
        )
