"""POST /v1/messages/count_tokens: what a prompt would cost, for nothing."""

from tokenworks.gateway.admission.keys import Keys
from tokenworks.gateway.edge import headers
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.guardrails.guardrails import Guardrails
from tokenworks.gateway.routing import vocabulary
from tokenworks.gateway.routing.planner import Planner
from tokenworks.gateway.upstreams.counting import count_tokens
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.protocols.anthropic_messages.codec import CODEC
from tokenworks.protocols.anthropic_messages.counting import decode_countable, encode_count
from tokenworks.protocols.anthropic_messages.versions import read_headers
from tokenworks.snapshot.residency import evidence
from tokenworks.snapshot.subscriber import Subscriber

PATH = "/v1/messages/count_tokens"
BODY_SECONDS = 60.0


class CountTokens:
    def __init__(
        self,
        snapshot: Subscriber,
        keys: Keys,
        planner: Planner,
        upstreams: Upstreams,
        guardrails: Guardrails,
        body_bytes: int,
    ) -> None:
        self._snapshot = snapshot
        self._keys = keys
        self._planner = planner
        self._upstreams = upstreams
        self._guardrails = guardrails
        self._body_bytes = body_bytes

    async def __call__(self, exchange: Exchange) -> None:
        exchange.codec = CODEC
        caller = await self._keys.identify(exchange)
        body = await exchange.read_body(self._body_bytes, BODY_SECONDS)
        request = vocabulary.decoded(decode_countable, body, exchange.headers)
        read_headers(request, exchange.header_texts())
        state = self._snapshot.state
        request = vocabulary.choices(request, state, caller)[0]
        exchange.named(request.via)
        target = self._planner.plan(request, caller, state)[0]
        upstream = state.upstreams[target.upstream]
        request = await self._guardrails.allowed(request, caller, state)
        tokens = await count_tokens(self._upstreams, request, upstream, target)
        proven = evidence(state.policies(caller.organization_id, caller.project_id), upstream)
        answerer = headers.Answerer(upstream.provider, target.model, 1, residency=proven)
        await exchange.respond(200, encode_count(tokens), headers=headers.of_answer(exchange, answerer))
