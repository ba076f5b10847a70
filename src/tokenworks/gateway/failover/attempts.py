"""The loop: an attempt, what became of it, who is next. All of it under the route's total limit."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial

from tokenworks.core.caller import Caller
from tokenworks.core.errors import Fault, InvalidRequest, TokenworksError, UpstreamUnavailable
from tokenworks.core.request import Conversation, Request
from tokenworks.core.target import Target
from tokenworks.gateway.edge.delivery import Delivery
from tokenworks.gateway.edge.headers import Answerer, require_effect
from tokenworks.gateway.failover.budget import RetryBudget
from tokenworks.gateway.failover.continuing import Story, begin, join, resumed
from tokenworks.gateway.failover.health import Health
from tokenworks.gateway.failover.hedging import hedge_after, race
from tokenworks.gateway.failover.route import Route
from tokenworks.gateway.failover.trying import Try, settle
from tokenworks.gateway.failover.turns import Turns
from tokenworks.gateway.guardrails.answer import Watched
from tokenworks.gateway.guardrails.base import line
from tokenworks.gateway.metering.attempt import Attempt, Meter
from tokenworks.gateway.upstreams.counting import count_tokens
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.gateway.upstreams.images import blame
from tokenworks.gateway.upstreams.parameters import without_effect
from tokenworks.gateway.upstreams.prepare import Prepared, prepare
from tokenworks.gateway.upstreams.watchdog import Watchdog
from tokenworks.journal.records import Settled
from tokenworks.snapshot.records import UpstreamRecord
from tokenworks.snapshot.residency import evidence

Answered = Callable[[Request, Caller, Target, Settled, bool], None]
"""Is told of every whole answer, and whether it came from a replica of ours."""

LEAST = 0.001
"""Seconds that an attempt is given when it begins at the very end."""


class Attempts:
    """One for all requests of a gateway."""

    def __init__(self, upstreams: Upstreams, meter: Meter, health: Health, answered: Answered) -> None:
        self.upstreams = upstreams
        self.meter = meter
        self.health = health
        self.answered = answered
        self._budgets: defaultdict[str, RetryBudget] = defaultdict(RetryBudget)

    async def answer(self, delivery: Delivery, route: Route) -> Settled:
        """How the attempt that answered was settled. Raises the error that the caller is to be told."""
        budget = self._budgets[route.model.name]
        budget.earn()
        return await _Run(self, delivery, route, budget).answer()


class _Run:
    """The attempts of one request."""

    def __init__(self, parts: Attempts, delivery: Delivery, route: Route, budget: RetryBudget) -> None:
        self._parts = parts
        self._delivery = delivery
        self._route = route
        self._budget = budget
        self._turns = Turns(route, parts.health, budget)
        self._story: Story | None = None
        """What the caller was told by attempts that were lost in the middle."""
        self._told_in_vain: set[str] = set()
        """Those that would not go on with what they were told."""
        self._identity = (delivery.codec.response_id(delivery.exchange.request_id), int(time.time()))

    async def answer(self) -> Settled:
        while True:
            target = await self._turns.next()
            try:
                one = await self._begun(target)
                rest = await self._shown(one)
            except TokenworksError as error:
                if error not in self._turns.errors:
                    raise
                continue
            settled = await self._settled(one)
            self._delivery.exchange.notes["output_tokens"] = settled.usage.output
            self._learn(one, settled)
            await self._delivery.finish(rest, one.attempt.observation, settled.charge)
            return settled

    async def _begun(self, target: Target) -> Try:
        """An attempt that has something to show: on `target`, or on the next one when that is late."""
        await self._enter(target)
        first = self._open(target)
        wait = hedge_after(self._parts.health, first, self._route.model.policy.hedge)
        if wait is None or self._story is not None or not self._turns.others():
            await self._begin(first)
            return first
        winner = await race(first, self._begin, wait, self._hedge)
        self._delivery.answered_by(winner.answerer)
        return winner

    async def _enter(self, target: Target) -> None:
        """UpstreamUnavailable when what may be bought from its provider is used up; InvalidRequest for an image that
        cannot be shown to an engine of ours."""
        try:
            await self._route.hold.enter(self._route.upstreams[target.upstream].provider)
        except UpstreamUnavailable as error:
            error.fault = Fault.UNSUITABLE  # by our own doing: it says nothing about its health
            self._turns.failed(target, error)
            raise
        if self._route.upstreams[target.upstream].local:
            await self._parts.upstreams.images.bring(self._route.asked.request)

    async def _hedge(self) -> Try | None:
        """Another attempt while one is under way; None when there is nobody for it, or no budget."""
        if not self._turns.others() or not self._budget.spend():
            return None
        if (target := self._turns.spare()) is None:
            return None
        try:
            await self._enter(target)
            return self._open(target)
        except TokenworksError:
            return None

    def _open(self, target: Target) -> Try:
        """InvalidRequest when this upstream cannot carry what is asked, or not as strictly as the caller wants it."""
        route, turns = self._route, self._turns
        upstream, attempts = route.upstreams[target.upstream], route.hold.attempts
        story, resuming = self._story, self._resuming(target, upstream)
        number, carried = route.asked.first_attempt + len(attempts), story.told if story and resuming else 0
        byok = route.brought(target.upstream) is not None
        proven = evidence(route.policies, upstream) if route.policies else ""
        attempt = self._parts.meter.open(
            route.asked, number, target, upstream, carried=carried, byok=byok, residency=proven
        )
        route.hold.add(attempt)
        if upstream.local and isinstance(route.asked.request.task, Conversation):
            attempt.tokenizer = partial(count_tokens, self._parts.upstreams, route.asked.request, upstream, target)
        watched = self._watching(attempt)
        try:
            prepared, ignored = self._prepare(target, attempt, resuming, watched)
        except BaseException as error:
            settle(attempt, error)
            if isinstance(error, InvalidRequest):
                error.fault = Fault.UNSUITABLE
                turns.failed(target, error)
            raise
        answerer = Answerer(upstream.provider, target.model, len(attempts), tuple(ignored), proven)
        self._delivery.answered_by(answerer)
        self._delivery.relayed_by(prepared.relay)
        dog = Watchdog(
            target.limits,
            upstream.provider,
            attempt.note_progress,
            stream=prepared.stream,
            since=turns.begun,
            whole=turns.remaining / (1 + others) if (others := turns.others()) else None,
        )
        one = Try(attempt, target, prepared, dog, answerer, resumes=resuming is not None, watched=watched)
        if self._may_go_on:
            one.remember()
        return one

    @property
    def _may_go_on(self) -> bool:
        policy = self._route.model.policy
        possible = len(self._route.targets) > 1 or policy.retries > 0
        return self._delivery.stream and possible and policy.on_stream_loss != "error"

    def _resuming(self, target: Target, upstream: UpstreamRecord) -> Request | None:
        """The request that makes the target go on with what was said, where it can."""
        allowed = self._route.model.policy.on_stream_loss == "resume" and target.upstream not in self._told_in_vain
        if self._story is None or not allowed:
            return None
        return resumed(self._story, self._route.asked.request, upstream)

    def _watching(self, attempt: Attempt) -> Watched | None:
        """What looks at the attempt's answer: one that has begun to look goes on, as the caller's stream does."""
        watch = self._route.watch
        if watch is None:
            return None
        before = Counter(watch.fired if len(self._route.hold.attempts) == 1 else ())  # told once
        watched = self._story.watched if self._story is not None else None
        if watched is not None:
            watched.observation = attempt.observation
        elif watch.looks:
            watched = Watched(watch, self._delivery.codec, self._route.asked.request, attempt.observation)
        attempt.guardrails = lambda: line(before + (watched.fired if watched is not None else Counter()))
        return watched

    def _prepare(
        self, target: Target, attempt: Attempt, resuming: Request | None, watched: Watched | None
    ) -> tuple[Prepared, list[str]]:
        """How it is asked, and what of the request has no effect there."""
        delivery, story = self._delivery, self._story
        request = resuming or self._route.asked.request
        request.time_left = max(self._turns.remaining, LEAST)
        upstream = self._route.upstreams[target.upstream]
        prepared = prepare(
            delivery.codec if watched is None else watched.codec,
            request,
            upstream,
            target.model,
            attempt.observation,
            self._identity,
            stream_whole=self._route.model.policy.stream_whole and len(self._route.targets) > 1,
            anew=story is not None,
        )
        if story is not None:
            prepared = join(story, prepared, upstream, resume=resuming is not None)
        ignored = without_effect(request, upstream, prepared)
        if "service_tier" in ignored:
            attempt.observation.answered_at("default")
        require_effect(delivery.exchange, ignored)
        return prepared, ignored

    async def _begin(self, one: Try) -> None:
        upstream, own = self._route.upstreams[one.target.upstream], self._route.brought(one.target.upstream)
        try:
            await one.begin(self._parts.upstreams.call(upstream, one.prepared, one.target.limits, own))
        except TokenworksError as error:
            if upstream.local:
                blame(error, self._route.asked.request)
            if self._story is not None:
                self._refused(one, error)
            self._turns.failed(one.target, error)
            raise

    def _refused(self, one: Try, error: TokenworksError) -> None:
        """The caller's request was right: what is wrong with this one is our own doing."""
        if error.fault not in (Fault.CALLER, Fault.CONTEXT_LENGTH, Fault.CONTENT_POLICY, Fault.UNSUITABLE):
            return
        error.fault = Fault.UNSUITABLE
        if one.resumes:
            self._told_in_vain.add(one.target.upstream)
            self._turns.again_at_once(one.target)

    def _lost(self, one: Try, error: TokenworksError) -> None:
        """An attempt broke in the middle of a stream. Another may go on with what the caller was told."""
        route, delivery = self._route, self._delivery
        if self._may_go_on and self._story is None:
            self._story = begin(one, delivery.codec, route.asked.request, self._identity)
            goes_on = self._story is not None
        else:
            goes_on = self._story is not None and self._story.goes_on(one)
        self._turns.lost(error, over=not goes_on)

    async def _shown(self, one: Try) -> bytes:
        try:
            rest = await one.rest(self._delivery)
        except TokenworksError as error:
            self._turns.failed(one.target, error)
            if self._delivery.written:
                self._lost(one, error)
            raise
        if one.lost is not None:
            one.lost.provider = one.lost.provider or one.attempt.provider
            self._turns.noted(one.target, one.lost)
        else:
            self._parts.health.answered(one.target, one.first_token)
        return rest

    def _learn(self, one: Try, settled: Settled) -> None:
        asked, upstream = self._route.asked, self._route.upstreams[one.target.upstream]
        self._parts.answered(asked.request, asked.caller, one.target, settled, upstream.local)

    async def _settled(self, one: Try) -> Settled:
        try:
            settled = one.attempt.complete(one.lost)
            await self._parts.meter.journal.commit()
            await self._route.hold.settle()
        except BaseException as error:
            settle(one.attempt, error)
            raise
        return settled
