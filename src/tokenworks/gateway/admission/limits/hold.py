"""What one request has reserved: more of it while its stream goes on, the truth in its place at the end."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

import msgspec

from tokenworks.core.allowance import Allowance
from tokenworks.core.errors import LimitReached, UpstreamUnavailable
from tokenworks.core.usage import Usage
from tokenworks.gateway.admission.limits.base import LARGEST, Claim, Decision, Reading
from tokenworks.gateway.admission.limits.rules import NEVER, Estimate, Rule, amount
from tokenworks.gateway.metering.attempt import Asked, Attempt
from tokenworks.snapshot.records import LimitRecord

DAY = 86_400
AHEAD_TOKENS = 256
"""How much output a stream reserves at once when it runs past what it holds."""


class Held(msgspec.Struct):
    """`claim` is what was asked for, `granted` what was got, extensions included; `reading` is of its reservation."""

    rule: Rule
    claim: Claim
    granted: int
    reading: Reading


class Keeper(Protocol):
    """What a hold needs of the admission that gave it."""

    async def more(self, hold: "Hold", claims: list[Claim]) -> Decision | None:
        """None when the store cannot decide."""
        ...

    async def enter(self, hold: "Hold", provider: str) -> None: ...

    async def end(self, hold: "Hold", actual: dict[str, int]) -> None: ...


class Hold:
    """`held`: of each limit that counts this request. `ended`: why its stream was ended."""

    def __init__(self, keeper: Keeper, asked: Asked, estimate: Estimate | None) -> None:
        self.attempts: list[Attempt] = []
        self.asked = asked
        self.held: list[Held] = []
        self.degraded = ""
        """Why it was given without the store."""
        self.ended = ""
        self.provider = ""
        self.tight = False
        """It was refused by what it takes at the most, where what it really takes might fit."""
        self.barred: dict[str, UpstreamUnavailable] = {}
        """Providers whose own limits have no room."""
        self.allowed = NEVER
        """Tokens of output that what is held covers."""
        self.estimate = estimate
        self._keeper = keeper
        self._open = True

    async def __aenter__(self) -> "Hold":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.settle()
        for attempt in self.attempts:
            attempt.part()

    def allowances(self) -> list[Allowance]:
        """What is left of the caller's own limits."""
        return [
            allowance(held.rule.limit, held.reading.used, held.reading.resets_in)
            for held in self.held
            if held.rule.told
        ]

    def take(self, rules: Sequence[Rule], claims: list[Claim], decision: Decision) -> None:
        """A reservation was granted."""
        for rule, claim, got in zip(rules, claims, decision.readings, strict=True):
            self.held.append(Held(rule, claim, got.granted, got))
        self._measure()

    def add(self, attempt: Attempt) -> None:
        """It is about to leave, and takes of what is held."""
        attempt.guard = self
        self.attempts.append(attempt)

    async def enter(self, provider: str) -> None:
        """An attempt is about to go to this provider. UpstreamUnavailable when its own limits have no room."""
        if (barred := self.barred.get(provider)) is not None:
            raise barred
        if provider != self.provider:
            await self._keeper.enter(self, provider)

    async def within(self, chunks: AsyncIterator[bytes], attempt: Attempt, frame: int) -> AsyncIterator[bytes]:
        """An upstream's stream, as far as what is held covers it; `ended` tells that it was longer.

        Where it may have to be ended: line by line, or in pieces no longer than its shortest `frame`. None of them
        brings more than one piece of output of each choice.
        """
        async for chunk in chunks:
            if self.allowed == NEVER or self.estimate is None:
                yield chunk
                continue
            exact = self.asked.request.may_end
            for piece in _pieces(chunk, frame) if exact else (chunk,):
                if not await self.covers(attempt.output + self.estimate.choices):
                    attempt.cut()
                    if not exact:
                        attempt.cancel()  # the caller pays for what came
                        raise LimitReached(f"The answer was ended: {self.ended}.", code="insufficient_quota")
                    return
                yield piece

    async def covers(self, output: int) -> bool:
        """Whether an answer may go on to so many tokens of output; False when a strict limit or a budget is used up."""
        if output <= self.allowed:
            return True
        estimate = self.estimate
        assert estimate is not None  # noqa: S101 -- `allowed` is never reached without one
        wishes: list[tuple[Held, Claim]] = []
        for held in self.held:
            exact, kind = held.rule.exact, held.rule.kind
            needed = estimate.amount(kind, estimate.with_output(output, exact=exact)) - held.granted
            if needed > 0:
                ahead = estimate.amount(kind, estimate.with_output(output + AHEAD_TOKENS, exact=exact)) - held.granted
                wishes.append((held, _more(held.claim, ahead, needed if exact else None)))
        decision = await self._keeper.more(self, [claim for _, claim in wishes]) if wishes else None
        if wishes and decision is None:
            if any(held.rule.exact for held, _ in wishes):
                self.ended = "limits cannot be checked right now"
                return False
        elif decision is not None and decision.refusal is not None:
            held = next(each for each, claim in wishes if claim.bucket == decision.refusal.bucket)
            self.ended = f"{describe(held.rule.limit)} is used up"
            return False
        elif decision is not None:
            for (held, _), got in zip(wishes, decision.readings, strict=True):
                held.granted += got.granted
        self._measure(output)
        return True

    async def settle(self) -> None:
        """Replace the hold by the usage of the attempts so far; a second time it does nothing."""
        if self._open:
            self._open = False
            await self._keeper.end(self, self._actual() if self.held else {})

    def _actual(self) -> dict[str, int]:
        """By bucket, what the attempts took."""
        whole, charge = _taken(self.attempts)
        actual = {}
        for held in self.held:
            rule = held.rule
            if not rule.bought:
                actual[rule.name] = amount(rule.kind, whole, charge)
                continue
            theirs = [each for each in self.attempts if each.provider == rule.limit.id and each.settled is not None]
            actual[rule.name] = amount(rule.kind, *_taken(theirs)) if theirs else 0
        return actual

    def _measure(self, reached: int = 0) -> None:
        """How far the answer may go before more must be reserved."""
        estimate, allowed = self.estimate, NEVER
        if estimate is None:
            return
        for held in self.held:
            if not held.rule.grows:
                continue
            if not held.rule.exact:
                allowed = min(allowed, max(estimate.usual.output, reached) + (AHEAD_TOKENS if reached else 0))
            elif held.granted != held.claim.amount:
                allowed = min(allowed, estimate.output_within(held.rule.kind, held.granted))
                self.asked.request.may_end = estimate.endable
            elif not estimate.bounded:
                allowed = min(allowed, estimate.most.output)
        self.allowed = allowed


def _taken(attempts: Iterable[Attempt]) -> tuple[Usage, int]:
    """What those that are settled took, and what that takes of budgets."""
    whole, charge = _NOTHING, 0
    for attempt in attempts:
        if (settled := attempt.settled) is not None:
            usage = settled.usage.usage()
            whole = usage if whole is _NOTHING else whole + usage
            charge += attempt.spent
    return whole, charge


_NOTHING = Usage()


def allowance(limit: LimitRecord, used: int, resets_in: float | None) -> Allowance:
    """What is left of a limit of which so much is used."""
    window = limit.window or {"day": DAY, "week": 7 * DAY, "month": 30 * DAY}.get(limit.period, 0)
    return Allowance(limit.kind, limit.limit, max(limit.limit - used, 0), window, resets_in)


def describe(limit: LimitRecord) -> str:
    """For people: which limit it is."""
    what = "the budget" if limit.kind == "spend_nano_usd" else "the limit"
    return f"{what} of {limit.scope} {limit.id}" + (f", model {limit.model}" if limit.model else "")


def refused_provider(limit: LimitRecord, retry_after: float | None) -> UpstreamUnavailable:
    return UpstreamUnavailable(
        f"What may be bought from {limit.id} is used up: {describe(limit)}.",
        provider=limit.id,
        code="provider_limit_reached",
        retry_after=retry_after,
    )


def _pieces(chunk: bytes, frame: int) -> list[bytes]:
    if not frame:
        return chunk.splitlines(keepends=True)
    return [chunk[at : at + frame] for at in range(0, len(chunk), frame)]


def _more(claim: Claim, ahead: int, least: int | None) -> Claim:
    """`least` None: a plain limit ends no stream, so it only counts on."""
    limit = LARGEST if least is None else claim.limit
    enough = None if least is None else ahead
    offset = claim.offset
    return Claim(claim.bucket, ahead, limit, claim.window, offset, False, least, enough, claim.floor, claim.since)
