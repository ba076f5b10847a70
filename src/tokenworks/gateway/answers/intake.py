"""How a request reaches the handlers here: who asks, what, and whether it can be answered at all."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tokenworks.core.caller import Caller
from tokenworks.core.errors import InvalidRequest, NotFound, TokenworksError
from tokenworks.core.request import Request
from tokenworks.gateway.admission.keys import Keys
from tokenworks.gateway.admission.residency import require_storable
from tokenworks.gateway.edge import headers
from tokenworks.gateway.edge.delivery import EdgeLimits
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.pipeline import Pipeline
from tokenworks.gateway.routing.planner import Planner
from tokenworks.gateway.routing.vocabulary import choices
from tokenworks.gateway.upstreams.counting import count_tokens
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.gateway.upstreams.parameters import without_effect
from tokenworks.gateway.upstreams.prepare import prepare
from tokenworks.protocols.base import Codec, Observation
from tokenworks.snapshot.state import State
from tokenworks.snapshot.subscriber import Subscriber


class Intake:
    def __init__(
        self,
        pipeline: Pipeline,
        keys: Keys,
        snapshot: Subscriber,
        planner: Planner,
        upstreams: Upstreams,
        limits: EdgeLimits,
    ) -> None:
        self.pipeline = pipeline
        self._planner = planner
        self._upstreams = upstreams
        self._keys = keys
        self._snapshot = snapshot
        self._limits = limits

    @property
    def state(self) -> State:
        return self._snapshot.state

    async def identify(self, exchange: Exchange) -> Caller:
        return await self._keys.identify(exchange)

    @asynccontextmanager
    async def received(self, exchange: Exchange) -> AsyncIterator[tuple[Caller, bytes]]:
        """Who asks, and the body. Inside they count as callers who wait, before whom no batch goes."""
        self.pipeline.interactive += 1
        try:
            caller = await self._keys.identify(exchange)
            yield caller, await exchange.read_body(self._limits.body_bytes, self._limits.body_seconds)
        finally:
            self.pipeline.interactive -= 1

    def require_storable(self, caller: Caller, remedy: str = "", *, also: Sequence[str] = ()) -> None:
        """PermissionDenied when nothing of the caller's may be kept here, or sent to the sinks that `also` names;
        `remedy` is told, a sentence."""
        require_storable(caller, self.state, remedy, also=also)

    def check(self, exchange: Exchange, codec: Codec, caller: Caller, request: Request) -> None:
        """Raises now what the pipeline would raise before it calls anybody, and notes what would have no effect."""
        *earlier, last = choices(request, self.state, caller)
        for choice in earlier:
            with contextlib.suppress(TokenworksError):
                exchange.ignored = self._ignored(codec, caller, choice)
                break
        else:
            exchange.ignored = self._ignored(codec, caller, last)
        headers.require_effect(exchange, exchange.ignored)

    def _ignored(self, codec: Codec, caller: Caller, request: Request) -> list[str]:
        """Where it can be answered first."""
        refused: InvalidRequest | None = None
        for target in self._planner.plan(request, caller, self.state):
            upstream = self.state.upstreams[target.upstream]
            try:
                prepared = prepare(codec, request, upstream, target.model, Observation(), ("", 0))
            except InvalidRequest as error:
                refused = refused or error
            else:
                return without_effect(request, upstream, prepared)
        raise refused or NotFound(f"Nobody answers for the model '{request.model}'.", param="model")

    async def count(self, caller: Caller, request: Request) -> int:
        """The tokens of the prompt. InvalidRequest when nobody can tell."""
        choice = choices(request, self.state, caller)[0]
        target = self._planner.plan(choice, caller, self.state)[0]
        choice = await self.pipeline.guardrails.allowed(choice, caller, self.state)
        return await count_tokens(self._upstreams, choice, self.state.upstreams[target.upstream], target)
