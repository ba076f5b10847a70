"""POST /tokenize: the tokens of a text, as the default model reads them."""

from tokenworks.core.request import Prompts, Request
from tokenworks.gateway.admission.keys import Keys
from tokenworks.gateway.edge import headers
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.guardrails.guardrails import Guardrails
from tokenworks.gateway.routing.plan import default_model
from tokenworks.gateway.routing.planner import Planner
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.gateway.upstreams.tokenizing import tokenize
from tokenworks.protocols.tgi.codec import CODEC
from tokenworks.protocols.tgi.info import decode_tokenize, encode_tokenize
from tokenworks.snapshot.residency import evidence
from tokenworks.snapshot.subscriber import Subscriber

PATH = "/tokenize"
BODY_SECONDS = 60.0


class Tokenize:
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
        text = decode_tokenize(await exchange.read_body(self._body_bytes, BODY_SECONDS)).inputs
        state = self._snapshot.state
        request = Request(default_model(Prompts, caller, state).name, Prompts([text]), CODEC.name)
        target = self._planner.plan(request, caller, state)[0]
        upstream = state.upstreams[target.upstream]
        task = (await self._guardrails.allowed(request, caller, state)).task
        text = "".join(each for each in task.prompts if isinstance(each, str)) if isinstance(task, Prompts) else text
        tokens = await tokenize(self._upstreams, text, upstream, target)
        proven = evidence(state.policies(caller.organization_id, caller.project_id), upstream)
        answerer = headers.Answerer(upstream.provider, target.model, 1, residency=proven)
        await exchange.respond(200, encode_tokenize(tokens), headers=headers.of_answer(exchange, answerer))
