"""Steps 8 and 9 of a request, for one attempt: watch what goes by, then settle it in the journal exactly once."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from tokenworks.core.caller import Caller
from tokenworks.core.errors import TokenworksError, Unavailable
from tokenworks.core.events import Timing
from tokenworks.core.price import BATCH, OWN_KEY, SHADOW, UNITS_PER_RATE, Price, sold_tier
from tokenworks.core.request import Request
from tokenworks.core.target import Target
from tokenworks.core.usage import Usage
from tokenworks.gateway.metering.counting import NOTHING, Count, estimate, judge, output, sent
from tokenworks.journal.records import Opened, Progress, Settled, UsageRecord
from tokenworks.journal.writer import Journal
from tokenworks.protocols.base import Observation
from tokenworks.snapshot.records import UpstreamRecord
from tokenworks.telemetry.metrics import Metrics

COUNT_SECONDS = 1.0
"""So long an engine of ours may take to count a prompt; then it is estimated."""
CACHE = "cache"
"""Who answers what was answered before: the provider and the version of the price of such attempts."""
GUARDRAIL = "guardrail"
"""The same, of requests that were refused by one."""
UNASKED = Price({"input": 0, "output": 0}, id=SHADOW)


class Asked(msgspec.Struct, frozen=True):
    """One caller's request. `arrived` is on the clock of time.perf_counter_ns."""

    request_id: str
    arrived: int
    caller: Caller
    request: Request
    first_attempt: int = 1
    """Later ones are of another model, or of another run of a batch's line."""

    @property
    def hold_id(self) -> str:
        """What its reservation is called: settled once, it cannot be made again under the same name."""
        return self.request_id if self.first_attempt == 1 else f"{self.request_id}.{self.first_attempt}"


@dataclass(frozen=True, slots=True)
class Meter:
    """Opens attempts. One per gateway."""

    journal: Journal
    metrics: Metrics

    def open(
        self,
        asked: "Asked",
        number: int,
        target: Target,
        upstream: UpstreamRecord,
        *,
        carried: int = 0,
        byok: bool = False,
        residency: str = "",
    ) -> "Attempt":
        """Journal that an attempt is about to leave, at the prices that are in force now.

        JournalFull when there is no room to bill it, Unavailable when the model has no price at this time.
        `carried`: tokens of output that reached the caller from earlier attempts, which this one reads as input and
        continues. They are billed as output, once, with the attempt that ends the answer.
        `byok`: it is made with a key of the caller's project, which pays the provider itself.
        `residency`: see journal.records.Opened.
        """
        now = time.time()
        price, cost = target.price.at(now), target.cost.at(now)
        if asked.request.shadow:
            price = UNASKED
        if price is None:
            raise Unavailable(f"The model '{asked.request.model}' has no price at this time.", code="no_price")
        if byok:
            price = cost = OWN_KEY
        answerer = target.upstream, upstream.provider, target.model
        record = self._opened(asked, number, answerer, byok=byok, residency=residency)
        return Attempt(self, record, asked, Rating(price, cost, upstream.region, upstream.local), carried)

    def repeat(
        self,
        asked: "Asked",
        number: int,
        model: str,
        charge: int,
        finish_reason: str,
        residency: str = "",
        guardrails: str = "",
    ) -> "Attempt":
        """An attempt that the cache answers, opened and settled: it costs us nothing and the caller `charge`
        nano-dollars for a request; no token was made. JournalFull as in `open`."""
        record = self._opened(asked, number, (CACHE, CACHE, model), residency=residency)
        price = Price({"priced_requests": charge * UNITS_PER_RATE}, id=CACHE)
        attempt = Attempt(self, record, asked, Rating(price, None), 0)
        attempt.guardrails = lambda: guardrails
        attempt.repeat(finish_reason)
        return attempt

    def refuse(self, asked: "Asked", error: TokenworksError, guardrails: str) -> None:
        """An attempt that a guardrail did not let leave, opened and settled: it costs nobody anything."""
        record = self._opened(asked, asked.first_attempt, (GUARDRAIL, GUARDRAIL, ""))
        attempt = Attempt(self, record, asked, Rating(Price({"priced_requests": 0}, id=GUARDRAIL), None), 0)
        attempt.guardrails = lambda: guardrails
        attempt.fail(error)

    def _opened(
        self, asked: "Asked", number: int, answerer: tuple[str, str, str], *, byok: bool = False, residency: str = ""
    ) -> Opened:
        """`answerer`: upstream, provider, and its name for the model."""
        upstream, provider, model = answerer
        caller, request, via = asked.caller, asked.request, asked.request.via
        record = Opened(
            request_id=asked.request_id,
            attempt=number,
            at=time.time_ns(),
            key_id=caller.key_id,
            project_id=caller.project_id,
            organization_id=caller.organization_id,
            protocol=request.protocol,
            model=request.model,
            upstream=upstream,
            provider=provider,
            upstream_model=model,
            stream=request.stream,
            batch=request.batch,
            tier=sold_tier(request.service_tier),
            byok=byok,
            residency=residency,
            alias=via.alias if via is not None else "",
            alias_version=via.version if via is not None else 0,
            alias_seed=via.seed if via is not None else 0,
            shadow=request.shadow,
        )
        self.journal.append(record)
        self.journal.flush()
        return record


class Rating(msgspec.Struct, frozen=True):
    """The versions of prices that apply to one attempt. `cost` None: nobody told what it costs us."""

    price: Price
    cost: Price | None
    region: str = ""
    local: bool = False


class Guard(Protocol):
    """What an answer may take. `ended`: why it was not let go on; "" when it was."""

    ended: str

    def within(self, chunks: AsyncIterator[bytes], attempt: "Attempt", frame: int) -> AsyncIterator[bytes]: ...


class Attempt:
    """`complete`, `cancel`, `fail` and `lose` end it; the first of them stands."""

    def __init__(self, meter: Meter, opened: Opened, asked: Asked, rating: Rating, carried: int) -> None:
        self.observation = Observation(clock=self.clock, estimate=lambda: self._taken().usage)
        self.provider = opened.provider
        self.guard: Guard | None = None
        self.tokenizer: Callable[[], Awaitable[int]] | None = None
        """How an engine of ours tells the tokens of the prompt."""
        self.position = 0
        """In the journal, of the record after its settlement."""
        self.settled: Settled | None = None
        self.guardrails: Callable[[], str] = str
        """What they found."""
        self._meter = meter
        self._opened = opened
        self.asked = asked
        self._rating = rating
        self._carried = carried
        self._begun = time.perf_counter_ns()
        self._first_ns = 0
        self._noted_deltas = 0
        self._sent = sent(asked.request)

    @property
    def usage(self) -> Usage:
        """What the caller is to be billed for so far."""
        usage = self._taken().usage
        if self._carried:
            usage = continued(usage if usage.prompt else self._taken(working=True).usage, self._carried)
        return self._with_units(usage, self._rating.price)

    def _taken(self, *, working: bool = False) -> Count:
        """What the upstream took and gave. `working`: it had the request, even if it showed nothing of its answer."""
        seen, request = self.observation, self.asked.request
        if seen.usage is not None:
            return judge(seen.usage, seen, request, local=self._rating.local, carried=self._carried)
        if not (working or seen.deltas or seen.finish_reasons):
            return Count(NOTHING)
        counted = estimate(request, seen, local=self._rating.local)
        if self._carried and seen.prompt is None:
            counted = replace(counted, input=counted.input + self._carried)
        return Count(counted)

    @property
    def answerer(self) -> tuple[str, str]:
        """The upstream, and its own name for the model."""
        return self._opened.upstream, self._opened.upstream_model

    @property
    def spent(self) -> int:
        """What it takes of budgets once it is settled: what its caller pays, or for a copy that nobody sees, we do."""
        settled = self.settled
        return 0 if settled is None else settled.cost if self._opened.shadow else settled.charge

    @property
    def begun_at(self) -> int:
        """Unix nanoseconds."""
        return self._opened.at

    async def count_prompt(self) -> None:
        """Of an answer that its caller left, as the engine of ours counts it that was about to tell it at the end."""
        seen = self.observation
        if self.tokenizer is None or not seen.deltas or seen.usage is not None or seen.prompt is not None:
            return
        with contextlib.suppress(TokenworksError, TimeoutError):
            async with asyncio.timeout(COUNT_SECONDS):
                seen.prompt = Usage(input=await self.tokenizer())

    @property
    def output(self) -> int:
        """Tokens of output that went by so far, by our own count."""
        return output(self.observation, local=self._rating.local) + self._carried

    def cut(self) -> None:
        """The answer ends here, not where the upstream would have: what it reported on the way is no total."""
        seen = self.observation
        if seen.usage is not None:
            seen.usage = replace(seen.usage, output=output(seen, local=self._rating.local))

    @property
    def first_token(self) -> float:
        """Seconds until the first output; 0 before."""
        return self._first_ns / 1e9

    def part(self) -> None:
        """Its request is over. What pointed in circles is let go, or only the garbage collector could free it all."""
        self.guard = self.observation.clock = self.observation.estimate = None

    def clock(self) -> Timing:
        now = time.perf_counter_ns() - self._begun
        first = self._first_ns or now
        return Timing((self._begun - self.asked.arrived) / 1e9, first / 1e9, (now - first) / 1e9)

    def output_seen(self) -> None:
        """Mark the first output; later calls cost nothing."""
        if not self._first_ns and (self.observation.deltas or self.observation.finish_reasons):
            self._first_ns = time.perf_counter_ns() - self._begun

    def note_progress(self) -> None:
        """Journal the usage so far, for a gateway that dies in the middle of a long stream."""
        if self.observation.deltas != self._noted_deltas and self.settled is None:
            self._noted_deltas = self.observation.deltas
            usage = self.usage
            opened = self._opened
            record = Progress(
                opened.request_id,
                opened.attempt,
                UsageRecord.of(usage),
                self._charge(usage),
                self._cost(self._taken().usage),
                *self._versions(usage),
            )
            self._meter.journal.append(record)
            self._meter.journal.flush()

    def complete(self, lost: TokenworksError | None = None) -> Settled:
        """`lost`: how its upstream was lost once the answer was whole."""
        reasons, code = self.observation.finish_reasons, "" if lost is None else lost.code
        return self._settle("completed", self.usage, finish_reason=reasons.get(0, "stop"), error=code)

    def repeat(self, finish_reason: str) -> Settled:
        """It is answered by what was answered before."""
        return self._settle("completed", Usage(priced_requests=1), finish_reason=finish_reason)

    def cancel(self) -> Settled:
        """The caller left: what was generated is billed."""
        return self._settle("cancelled", self.usage, status=499)

    def fail(self, error: TokenworksError) -> Settled:
        """A failed attempt costs the caller nothing and is recorded."""
        return self._settle("failed", NOTHING, status=error.status, error=error.code)

    def lose(self) -> Settled:
        """Another attempt at the same request answered first: this one costs the caller nothing."""
        return self._settle("overtaken", NOTHING, status=499)

    def _settle(
        self, outcome: str, usage: Usage, *, status: int = 200, error: str = "", finish_reason: str = ""
    ) -> Settled:
        if self.settled is not None:
            return self.settled
        opened, reported = self._opened, self.observation.usage
        price, cost_price = self._versions(usage)
        count = self._taken(working=outcome in ("cancelled", "overtaken"))
        units = usage.priced_requests or usage.images or usage.audio_ms
        billed = replace(usage, priced_requests=0, images=0, audio_ms=0) if units else usage
        self.settled = Settled(
            request_id=opened.request_id,
            attempt=opened.attempt,
            at=time.time_ns(),
            outcome=outcome,
            usage=UsageRecord.of(usage),
            charge=self._charge(usage),
            status=status,
            error=error,
            finish_reason=finish_reason,
            first_token_ns=self._first_ns,
            duration_ns=time.perf_counter_ns() - self._begun,
            estimated=(reported is None or bool(count.doubt)) and count.usage != NOTHING,
            cost=self._cost(count.usage),
            price=price,
            cost_price=cost_price,
            tier="" if self.tier == opened.tier else self.tier or "default",
            reported=UsageRecord.of(reported) if reported is not None and reported != billed else None,
            counted=UsageRecord.of(count.counted) if count.counted is not None else None,
            guardrails=self.guardrails(),
        )
        self._meter.journal.append(self.settled)
        self.position = self._meter.journal.end
        self._meter.journal.flush()
        self._count(usage, outcome, count)
        return self.settled

    @property
    def charge(self) -> int:
        """What the caller would pay if the answer ended here, in nano-dollars."""
        return self._charge(self.usage)

    @property
    def tier(self) -> str:
        """At which it was answered, as far as the upstream tells, or else as it was asked."""
        told = self.observation.service_tier
        return self._opened.tier if told is None else sold_tier(told)

    def _charge(self, usage: Usage) -> int:
        """What the caller pays for it."""
        rating = self._rating
        return rating.price.charge(usage, BATCH if self._opened.batch else self.tier, rating.region)

    def _cost(self, taken: Usage) -> int:
        """What we pay, for all that the upstream did: it knows no batches of ours, and is paid for what failed too."""
        cost = self._rating.cost
        return 0 if cost is None else cost.charge(self._with_units(taken, cost), self.tier, self._rating.region)

    def _with_units(self, usage: Usage, price: Price) -> Usage:
        """With what the request took along, and itself where there is a fee for each. Of nothing, nothing."""
        if usage == NOTHING:
            return usage
        images, audio_ms = self._sent
        fee = int("priced_requests" in price.rates)
        units = images or audio_ms or fee
        return replace(usage, images=images, audio_ms=audio_ms, priced_requests=fee) if units else usage

    def _versions(self, usage: Usage) -> tuple[str, str]:
        rating = self._rating
        return rating.price.id if usage != NOTHING else "", rating.cost.id if rating.cost is not None else ""

    def _count(self, usage: Usage, outcome: str, count: Count) -> None:
        metrics, model = self._meter.metrics, self._opened.model
        if count.counted is not None:
            metrics.disputes.labels(model, self.provider, count.doubt or "differs").inc()
        metrics.attempts.labels(model, self.provider, outcome).inc()
        if usage.input:
            metrics.tokens.labels(model, "input").inc(usage.input)
        if usage.cached_input:
            metrics.tokens.labels(model, "cached_input").inc(usage.cached_input)
        if usage.cache_write:
            metrics.tokens.labels(model, "cache_write").inc(usage.cache_write)
        if usage.output:
            metrics.tokens.labels(model, "output").inc(usage.output)
        if usage.reasoning:
            metrics.tokens.labels(model, "reasoning").inc(usage.reasoning)
        metrics.queue_time.labels(model).observe((self._begun - self.asked.arrived) / 1e9)
        if self._first_ns:
            first = self._begun + self._first_ns
            metrics.time_to_first_token.labels(model).observe((first - self.asked.arrived) / 1e9)
            if self.observation.deltas > 1:
                gap = (time.perf_counter_ns() - first) / (self.observation.deltas - 1)
                metrics.inter_token_latency.labels(model).observe(gap / 1e9)


def continued(reported: Usage, carried: int) -> Usage:
    """What earlier attempts wrote is output to the caller, wherever the last one's report counts it as input."""
    rest = carried
    kinds = {}
    for kind in ("input", "cache_write", "cached_input"):
        kinds[kind] = max(getattr(reported, kind) - rest, 0)
        rest -= getattr(reported, kind) - kinds[kind]
    return replace(reported, output=reported.output + carried, **kinds)
