"""Plans with what this gateway has seen, and remembers: who was first, whose prompt cache is warm for whom.

A ranking depends on facts that change slowly, so it is kept for RANKING_SECONDS: a request over 200 targets costs a
look-up, and the full comparison is made ten times a second at most for each kind of request.
"""

import random
import time
from collections import OrderedDict
from collections.abc import Callable

from tokenworks.core.caller import Caller
from tokenworks.core.messages import Role, Text
from tokenworks.core.needs import needed
from tokenworks.core.request import Conversation, Request
from tokenworks.core.target import Target
from tokenworks.core.usage import BYTES_PER_TOKEN, Usage
from tokenworks.gateway.routing.plan import Facts, Judged, find_model, judge, least_busy_first, nobody, sort_of
from tokenworks.gateway.routing.prompt_keys import prompt_keys
from tokenworks.gateway.routing.scores import MARGIN
from tokenworks.journal.records import Settled
from tokenworks.snapshot.state import State

RANKING_SECONDS = 0.1
EXPLORED = 0.01
"""Share of requests that somebody else than the best is tried with, so that what is known of the others stays true."""
WARM_SECONDS = 600.0
"""How long a provider is taken to keep a prompt cache that nobody asks for."""
MOST_WARM, MOST_RANKINGS = 50_000, 1_000
BUSIER = 2
"""A replica of ours whose cache is warm may have so many more requests than the least busy one."""

WORTH_TOKENS = 32
"""Fewer are computed as soon as copied; what a chat template says to everybody is no more."""
BUSY_TOKENS = 128
"""Of a prompt: what it is worth to be asked of a replica that has one request less."""

Session = tuple[str, str, int]


class Planner:
    def __init__(
        self,
        facts: Facts,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.facts = facts
        self._clock = clock
        self._draw = draw
        self._rankings: OrderedDict[tuple[object, ...], tuple[float, State, list[Judged]]] = OrderedDict()
        self._first: dict[tuple[str, str], tuple[str, str]] = {}
        self._warm: OrderedDict[Session, tuple[float, str]] = OrderedDict()

    def plan(self, request: Request, caller: Caller, state: State) -> list[Target]:
        """As plan.plan, in the light of what was planned before."""
        judged = self._ranking(request, caller, state)
        able = [each for each in judged if not each.reason]
        if not able:
            raise nobody(request, caller, judged)
        if any(each.upstream.local and self.facts.held.live(each.upstream.id) for each in able):
            request.prefixes = prompt_keys(request, caller.project_id)
        if len(able) == 1:
            return [able[0].target]
        if able[0].score is not None and not (request.routing and request.routing.order):
            self._keep_or_explore(request, state, able)
        if not (request.prefixes and self._nearest(request, able)):
            self._keep_warm(request, caller, able)
        return [each.target for each in able]

    def answered(self, request: Request, caller: Caller, target: Target, settled: Settled, local: bool) -> None:
        """A whole answer: what it took, and that its prompt may now be cached there."""
        used = settled.usage
        usage = Usage(used.input, used.cached_input, used.cache_write, used.output)
        first, duration = settled.first_token_ns / 1e9, settled.duration_ns / 1e9
        self.facts.observed.answered(target.upstream, target.model, usage, first, duration)
        if local or usage.cached_input or usage.cache_write:
            self._warm[session(request, caller)] = (self._clock() + WARM_SECONDS, target.upstream)
            if len(self._warm) > MOST_WARM:
                self._warm.popitem(last=False)

    def _ranking(self, request: Request, caller: Caller, state: State) -> list[Judged]:
        """Not kept where the request itself decides who is able."""
        wanted = request.routing
        if wanted is not None and wanted.require_parameters:
            return judge(request, caller, state, self.facts)
        find_model(request.model, caller, state, request.via)  # the ranking may be another key's
        now = self._clock()
        size = (len(request.body) // BYTES_PER_TOKEN).bit_length()
        tenant = (caller.organization_id, caller.project_id)  # prices may be their own
        able_to = (type(request.task), *needed(request))
        alias = request.via.alias if request.via is not None else ""  # so may its prices
        wishes = None if wanted is None else wanted.wishes
        key = (request.model, alias, size, request.max_output_tokens, tenant, caller.regions, able_to, wishes)
        kept = self._rankings.get(key)
        if kept is not None and kept[1] is state and now < kept[0]:
            judged = list(kept[2])
            if judged and judged[0].score is None:
                least_busy_first(judged, self.facts)  # by now
            return judged
        judged = judge(request, caller, state, self.facts)
        compared = wanted is None or any(each.score is not None for each in judged)  # else it is quickly made anew
        if compared and not request.ignored:  # what it reports of a request is part of the judgement
            self._rankings[key] = (now + RANKING_SECONDS, state, judged)
            if len(self._rankings) > MOST_RANKINGS:
                self._rankings.popitem(last=False)
        return list(judged)

    def _keep_or_explore(self, request: Request, state: State, able: list[Judged]) -> None:
        key = (request.model, sort_of(request, state.models[request.model]))
        if self._draw() < EXPLORED:
            able.insert(0, able.pop(1 + int(self._draw() * (len(able) - 1))))
            return
        first, best = self._first.get(key), able[0]
        if first is not None and first != (best.target.upstream, best.target.model):
            for place, each in enumerate(able):
                if (each.target.upstream, each.target.model) == first:
                    if (best.score or 0.0) > MARGIN * (each.score or 0.0) and not self.facts.health.paused(first[0]):
                        able.insert(0, able.pop(place))
                    break
        self._first[key] = (able[0].target.upstream, able[0].target.model)

    def _nearest(self, request: Request, able: list[Judged]) -> bool:
        """To the front, of replicas that tell what they hold, the one that has to compute the least. False: they do
        not, or nobody ever saw how this prompt begins."""
        if not able[0].upstream.local or (request.routing and request.routing.order):
            return False
        held, in_flight = self.facts.held, self.facts.in_flight
        ours = [each for each in able if each.upstream.local]
        if len(ours) < 2 or not all(held.live(each.upstream.id) for each in ours):
            return False
        tokens = held.tokens(request.prefixes, [each.upstream.id for each in ours])
        if not tokens:
            return False
        least = min(in_flight.get(each.upstream.id, 0) for each in ours)

        def gain(each: Judged) -> int:
            busier, spared = in_flight.get(each.upstream.id, 0) - least, tokens[each.upstream.id]
            return (spared if spared >= WORTH_TOKENS and busier <= BUSIER else 0) - BUSY_TOKENS * busier

        best = max(ours, key=gain)
        able.remove(best)
        able.insert(0, best)
        return True

    def _keep_warm(self, request: Request, caller: Caller, able: list[Judged]) -> None:
        """To the front, unless reading its cache is no cheaper than reading anew elsewhere, or it is much busier."""
        if not self._warm or (request.routing and request.routing.order):
            return
        until, upstream = self._warm.get(session(request, caller), (0.0, ""))
        if until < self._clock():
            return
        best = able[0]
        for place, each in enumerate(able):
            if each.upstream.id == upstream:
                if place and self._worth(each, best):
                    able.insert(0, able.pop(place))
                return

    def _worth(self, warm: Judged, best: Judged) -> bool:
        if warm.upstream.local and best.upstream.local:
            in_flight = self.facts.in_flight
            return in_flight.get(warm.upstream.id, 0) <= in_flight.get(best.upstream.id, 0) + BUSIER
        if warm.score is None:  # the operator's own order stands
            return False
        now = time.time()
        warm_cost, best_cost = warm.target.cost.at(now), best.target.cost.at(now)
        return bool(warm_cost and best_cost and warm_cost.rate("cached_input") < best_cost.rate("input"))


def session(request: Request, caller: Caller) -> Session:
    """Requests that begin alike: of one project, for one model, with the same instructions and first message."""
    task = request.task
    if not isinstance(task, Conversation):
        return caller.project_id, request.model, hash(request.body[:512])
    texts: list[str] = []
    for message in task.messages[:3]:
        texts += [part.text for part in message.parts if isinstance(part, Text)]
        if message.role is Role.USER:
            break
    return caller.project_id, request.model, hash(tuple(texts))
