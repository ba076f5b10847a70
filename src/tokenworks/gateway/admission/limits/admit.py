"""Step 5 of a request: one atomic hold over every limit and budget it touches; its end replaces the hold by the truth.

Failure policy: while the store cannot decide, strict limits and budgets refuse (503) and plain limits go on with this
gateway's share of them; a response header, a metric and /readyz say "degraded". docs/limits.md tells all of it.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tokenworks.core.errors import LimitReached, TokenworksError, Unavailable
from tokenworks.core.request import Request
from tokenworks.core.target import Target
from tokenworks.gateway.admission.limits.base import Claim, Decision, LimitStore, Reading, Refusal
from tokenworks.gateway.admission.limits.hold import Held, Hold, allowance, describe, refused_provider
from tokenworks.gateway.admission.limits.learned import Learned
from tokenworks.gateway.admission.limits.link import StoreLink
from tokenworks.gateway.admission.limits.rules import (
    SPEND,
    TEMPLATE_TOKENS,
    TOLD,
    Estimate,
    Rule,
    Rules,
    estimate,
    is_rendered,
)
from tokenworks.gateway.admission.limits.unshipped import Charge, Unshipped
from tokenworks.gateway.metering.attempt import CACHE, Asked
from tokenworks.snapshot.records import LimitRecord
from tokenworks.snapshot.state import State
from tokenworks.snapshot.subscriber import Subscriber

Counter = Callable[[State, Request, Target], Awaitable[int]]
"""Asks an engine of ours for the tokens of a prompt. TokenworksError when it cannot tell."""
COUNT_SECONDS = 1.0
"""So long it may take before a request is refused by the bound."""
LOOK_SECONDS = 0.1
"""A waiting request looks so often whether another gateway gave something back."""


@dataclass(frozen=True, slots=True)
class Left:
    """One limit as a request would meet it now."""

    limit: LimitRecord
    claim: Claim
    reading: Reading

    @property
    def room(self) -> int:
        return max(self.claim.limit - self.reading.used, 0)

    @property
    def refuses(self) -> bool:
        return self.claim.smallest > self.room


_WORDS = {
    "requests": "requests",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "tokens": "tokens",
    "uncached_input_tokens": "uncached input tokens",
    "concurrency": "requests at once",
    "spend_nano_usd": "nano-dollars",
}


class Admission:
    """`wait`: seconds a request waits for what running ones may give back."""

    def __init__(
        self,
        snapshot: Subscriber,
        store: LimitStore,
        unshipped: Unshipped,
        gateway_id: str,
        *,
        wait: float = 2.0,
        counter: Counter | None = None,
    ) -> None:
        self._counter = counter
        self._snapshot = snapshot
        self._unshipped = unshipped
        self._link = StoreLink(store, gateway_id)
        self._wait = wait
        self._rules = Rules({})
        self._learned = Learned()
        self._queues: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._returned: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    @property
    def degraded(self) -> str:
        """Why the store cannot decide; "" while it can."""
        return self._link.away

    def start(self) -> None:
        self._link.start()

    async def settled(self) -> None:
        """Until the store has confirmed every settlement so far."""
        await self._link.confirmed()

    async def close(self) -> None:
        await self._link.close()

    async def hold(self, asked: Asked, state: State, targets: list[Target]) -> Hold:
        """LimitReached naming the first limit without room and the exact wait; Unavailable when that cannot be told."""
        rules, model = self._current(), state.models[asked.request.model]
        limits = rules.for_request(asked.caller, model.name)
        if not limits and not rules.of_providers:
            return Hold(self, asked, None)
        provider = state.upstreams[targets[0].upstream].provider
        bought = rules.for_provider(provider, model.name)
        hold = Hold(self, asked, self._estimate(asked, state, targets))
        if limits or bought:
            try:
                await self._reserve(hold, limits, bought, provider)
            except LimitReached:
                if not await self._counted(hold, state, targets):
                    raise
                await self._reserve(hold, limits, bought, provider)
        return hold

    async def _counted(self, hold: Hold, state: State, targets: list[Target]) -> bool:
        """Whether the prompt was counted, because it was refused by a bound of its tokens: at a token a byte a strict
        limit has no room for what would fit by far."""
        request, bound = hold.asked.request, hold.estimate
        ours = all(state.upstreams[target.upstream].local for target in targets)
        if self._counter is None or bound is None or not (hold.tight and ours and is_rendered(request)):
            return False
        try:
            async with asyncio.timeout(COUNT_SECONDS):
                counted = await self._counter(state, request, targets[0])
        except (TokenworksError, TimeoutError):
            return False
        hold.estimate = bound.with_input(counted + TEMPLATE_TOKENS)
        return hold.estimate.most.input < bound.most.input

    async def left(self, asked: Asked, state: State, targets: list[Target]) -> list[Left]:
        """Each limit that would count this request, in the order of refusals, those of its targets' providers last.
        Nothing is reserved. Unavailable while the store cannot tell."""
        rules, model = self._current(), state.models[asked.request.model]
        found = rules.for_request(asked.caller, model.name)
        for provider in dict.fromkeys(state.upstreams[target.upstream].provider for target in targets):
            found += rules.for_provider(provider, model.name)
        if not found:
            return []
        claims = self._claims(self._estimate(asked, state, targets), found)
        readings = await self._link.read(claims)
        told = zip(found, claims, readings, strict=True)
        return [Left(rule.limit, claim, reading) for rule, claim, reading in told]

    async def enter(self, hold: Hold, provider: str) -> None:
        """The limits of a provider that a later attempt of a hold goes to."""
        hold.provider = provider
        limits = self._current().for_provider(provider, hold.asked.request.model)
        if not limits or hold.estimate is None:
            return
        claims = self._claims(hold.estimate, limits)
        try:
            decision = await self._link.extend(hold.asked.hold_id, claims)
        except KeyError:
            decision = await self._link.reserve(hold.asked.hold_id, claims)
        if (refusal := decision.refusal) is not None:
            named = next(limit for limit in limits if limit.name == refusal.bucket)
            raise refused_provider(named.limit, refusal.retry_after)
        hold.take(limits, claims, decision)

    async def more(self, hold: Hold, claims: list[Claim]) -> Decision | None:
        try:
            return await self._link.extend(hold.asked.hold_id, claims)
        except (Unavailable, KeyError):
            return None

    async def end(self, hold: Hold, actual: dict[str, int]) -> None:
        request = hold.asked.request
        caller = hold.asked.caller
        for attempt in hold.attempts:
            settled = attempt.settled
            if settled is None:
                continue
            if attempt.spent and self._rules.source:
                provider, position = attempt.provider, attempt.position
                charge = Charge(position, attempt.begun_at, caller, request.model, provider, attempt.spent)
                self._unshipped.note(charge, self._rules)
            if settled.outcome == "completed" and attempt.provider != CACHE and not hold.ended:
                output = settled.usage.output // (hold.estimate.choices if hold.estimate else 1)
                self._learned.note(caller.key_id, request.model, output)
        if hold.held:
            await self._link.settle(hold.asked.hold_id, actual)
            for held in hold.held:
                self._give_back(held)

    def _current(self) -> Rules:
        limits = self._snapshot.state.limits
        if self._rules.source is not limits:
            self._rules = Rules(limits)
        return self._rules

    def _estimate(self, asked: Asked, state: State, targets: list[Target]) -> Estimate:
        caller, model = asked.caller, state.models[asked.request.model]
        learned = self._learned.size(caller.key_id, model.name)
        return estimate(asked.request, model, targets, learned, state.own_keys.get(caller.project_id))

    def _claims(self, expected: Estimate, limits: Sequence[Rule]) -> list[Claim]:
        state, rules = self._snapshot.state, self._rules
        return [
            expected.claim(rule, state.spends.get(rule.name), self._unshipped.of(rule.name, state, rules))
            if rule.kind == SPEND
            else expected.claim(rule)
            for rule in limits
        ]

    async def _reserve(self, hold: Hold, limits: tuple[Rule, ...], bought: tuple[Rule, ...], provider: str) -> None:
        assert hold.estimate is not None  # noqa: S101 -- the caller has just made it
        every = limits + bought
        claims = self._claims(hold.estimate, every)
        hold.provider = provider
        try:
            decision = await self._decide(hold.asked.hold_id, claims)
        except Unavailable as error:
            if any(rule.exact for rule in every):
                raise
            hold.degraded = error.message
            decision = await self._link.reserve_share(hold.asked.hold_id, claims)
        if (refusal := decision.refusal) is None:
            hold.take(every, claims, decision)
            return
        at = next(at for at, claim in enumerate(claims) if claim.bucket == refusal.bucket)
        if at >= len(limits):
            hold.barred[provider] = refused_provider(every[at].limit, refusal.retry_after)
            if limits:
                await self._reserve(hold, limits, (), provider)
            return
        hold.tight = every[at].exact and refusal.used + hold.estimate.smallest(every[at].kind) <= refusal.limit
        raise _refused(every[at].limit, claims[at], refusal, self._wait)

    async def _decide(self, request_id: str, claims: list[Claim]) -> Decision:
        """Behind what running requests may give back, a request waits its turn, up to the stated time."""
        decision = await self._link.reserve(request_id, claims)
        refusal = decision.refusal
        if refusal is None or not _may_come(refusal, claims) or self._wait <= 0:
            return decision
        bucket, deadline = refusal.bucket, asyncio.get_running_loop().time() + self._wait
        turn = self._queues[bucket]
        if not await _acquired(turn, self._wait):
            return await self._link.reserve(request_id, claims)
        try:
            while decision.refusal is not None and _may_come(decision.refusal, claims):
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0:
                    break
                await self._news(bucket, min(left, LOOK_SECONDS))
                decision = await self._link.reserve(request_id, claims)
        finally:
            turn.release()
            self._tidy(bucket)
        return decision

    async def _news(self, bucket: str, seconds: float) -> None:
        """Until something of this bucket came back here, or it is time to look what others did."""
        event = self._returned[bucket]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()
        event.clear()

    def _give_back(self, held: Held) -> None:
        event = self._returned.get(held.claim.bucket)
        if event is not None:
            event.set()

    def _tidy(self, bucket: str) -> None:
        lock = self._queues.get(bucket)
        if lock is not None and not lock.locked():
            self._queues.pop(bucket, None)
            self._returned.pop(bucket, None)


async def _acquired(turn: asyncio.Lock, seconds: float) -> bool:
    """A reservation itself is never interrupted: nobody would know whether it was granted."""
    try:
        async with asyncio.timeout(seconds):
            return await turn.acquire()
    except TimeoutError:
        return False


def _may_come(refusal: Refusal, claims: list[Claim]) -> bool:
    """Whether there is room in truth: what is missing is only held, and its holders may not need it."""
    if refusal.rebuilding:
        return True
    claim = next(claim for claim in claims if claim.bucket == refusal.bucket)
    return refusal.used - refusal.pending + claim.smallest <= refusal.limit


def _refused(limit: LimitRecord, claim: Claim, refusal: Refusal, waited: float) -> LimitReached | Unavailable:
    if refusal.rebuilding:
        return Unavailable(
            "Budgets cannot be checked right now: what was spent is being collected anew.",
            code="limit_store_rebuilding",
            retry_after=refusal.retry_after,
        )
    wait = refusal.retry_after
    if wait is None and refusal.pending:
        wait = waited or LOOK_SECONDS
    where = describe(limit)
    if limit.kind == "spend_nano_usd":
        used_up = f"{where[0].upper()}{where[1:]} is used up."
        too_little = f"What is left of {where} cannot cover this request; a shorter prompt may fit."
        return LimitReached(
            used_up if refusal.used >= refusal.limit else too_little,
            code="insufficient_quota",
            retry_after=wait,
        )
    span = f" per {limit.window} s" if limit.window else f" per {limit.period}" if limit.period else ""
    needed = f", {claim.smallest} needed" if limit.kind.endswith("tokens") else ""
    error = LimitReached(
        f"Limit reached for {where.partition(' of ')[2]}: {refusal.limit} {_WORDS[limit.kind]}{span}, "
        f"{refusal.used} in use{needed}.",
        retry_after=wait,
    )
    if limit.kind in TOLD:
        error.allowance = allowance(limit, refusal.used, refusal.retry_after)
    return error
