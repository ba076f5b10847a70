"""The path of a request, top to bottom. docs/request.md walks it with the files it touches."""

import time
from collections.abc import Callable

from tokenworks.core.caller import Caller
from tokenworks.core.errors import TokenworksError
from tokenworks.core.request import Request
from tokenworks.gateway.admission.keys import Keys
from tokenworks.gateway.admission.limits.admit import Admission
from tokenworks.gateway.admission.residency import require_storable
from tokenworks.gateway.caching.cached import Cached
from tokenworks.gateway.edge.delivery import Delivery, EdgeLimits
from tokenworks.gateway.edge.exchange import Exchange, Keeper
from tokenworks.gateway.failover.route import Route
from tokenworks.gateway.guardrails.guardrails import Guardrails
from tokenworks.gateway.metering.attempt import Asked
from tokenworks.gateway.routing import vocabulary
from tokenworks.gateway.routing.plan import default_model
from tokenworks.gateway.routing.planner import Planner
from tokenworks.gateway.shadows import Shadows
from tokenworks.journal.records import Settled
from tokenworks.protocols import codec as find_codec
from tokenworks.protocols.base import Codec, ReadsHeaders
from tokenworks.snapshot.subscriber import Subscriber


class Pipeline:
    def __init__(
        self,
        snapshot: Subscriber,
        keys: Keys,
        admission: Admission,
        planner: Planner,
        answers: Cached,
        shadows: Shadows,
        limits: EdgeLimits,
        guardrails: Guardrails,
    ) -> None:
        self._snapshot = snapshot
        self._keys = keys
        self._admission = admission
        self._planner = planner
        self._answers = answers
        self._shadows = shadows
        self._limits = limits
        self.guardrails = guardrails
        self.keep: Callable[[Caller, Request], Keeper] | None = None
        """Who keeps answers that their callers want stored."""
        self.interactive = 0
        """Requests of callers who wait, in flight."""

    async def answer(self, exchange: Exchange, codec: Codec) -> None:
        """Answer one request, or raise the one error that the edge tells the caller in the codec's shape."""
        arrived = time.perf_counter_ns()
        self.interactive += 1
        try:
            caller = await self._keys.identify(exchange)
            body = await exchange.read_body(self._limits.body_bytes, self._limits.body_seconds)
            request = vocabulary.decoded(codec.decode_request, body, exchange.headers)
            await self.serve(exchange, codec, caller, request, arrived)
        finally:
            self.interactive -= 1

    async def serve(
        self, exchange: Exchange, codec: Codec, caller: Caller, request: Request, arrived: int, first_attempt: int = 1
    ) -> Settled:
        """The same for a caller who is known and a request that is read; how the attempt that answered was settled."""
        if isinstance(codec, ReadsHeaders):
            codec.read_headers(request, exchange.header_texts())
        if request.protocol != codec.name:
            codec = exchange.codec = find_codec(request.protocol)
        state = self._snapshot.state
        if request.batch:  # its result is stored; the policy may be younger than the batch
            require_storable(caller, state)
        if request.keep and self.keep is not None:
            exchange.keeper = self.keep(caller, request)
        request.model = request.model or default_model(type(request.task), caller, state).name
        request.tenant = caller.project_id
        delivery = Delivery(exchange, codec, self._limits, stream=request.stream)
        request.id = exchange.request_id
        choices = vocabulary.choices(request, state, caller)
        for choice in choices[:-1]:
            try:
                number = first_attempt + delivery.earlier
                return await self._on(delivery, Asked(exchange.request_id, arrived, caller, choice, number))
            except TokenworksError as error:
                if delivery.written or not vocabulary.falls_over(error):
                    raise
                delivery.earlier = exchange.notes.get("attempts", 0)
        number = first_attempt + delivery.earlier
        return await self._on(delivery, Asked(exchange.request_id, arrived, caller, choices[-1], number))

    async def _on(self, delivery: Delivery, asked: Asked) -> Settled:
        """One model's answer: planned, reserved, and got from the cache or from its targets."""
        exchange, caller, request, state = delivery.exchange, asked.caller, asked.request, self._snapshot.state
        exchange.notes |= {"key_id": caller.key_id, "model": request.model, "stream": request.stream}
        exchange.named(request.via)
        copy = self._shadows.copy(asked, delivery.codec, exchange.path)
        targets = self._planner.plan(request, caller, state)
        exchange.notes["metered_model"] = request.model
        async with await self._admission.hold(asked, state, targets) as hold:
            exchange.degraded, exchange.allowances = hold.degraded, hold.allowances()
            model, own_keys = state.models[request.model], state.own_keys.get(caller.project_id)
            policies = state.policies(caller.organization_id, caller.project_id)
            uncacheable = self._planner.facts.here.uncacheable(policies, state)
            asked, watch = await self.guardrails.before(asked, state)
            exchange.guarded = watch.told if watch is not None else ""
            cache = state.caches.get(caller.project_id)
            route = Route(asked, model, targets, state.upstreams, hold, own_keys, policies, uncacheable, watch, cache)
            with self._shadows.beside(copy, asked.request):
                return await self._answers.answer(delivery, route.within(request.patience))
