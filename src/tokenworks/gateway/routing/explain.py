"""`POST /v1/route:explain`: who would answer this request, in which order, who may not and why. Nobody is asked."""

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from tokenworks.core.caller import Caller
from tokenworks.core.errors import InvalidRequest, TokenworksError, Unavailable
from tokenworks.core.money import nano_to_usd
from tokenworks.core.price import Price
from tokenworks.core.request import Request
from tokenworks.core.usage import BYTES_PER_TOKEN, Usage
from tokenworks.gateway.admission.keys import Keys
from tokenworks.gateway.admission.limits.admit import Admission, Left
from tokenworks.gateway.admission.limits.hold import describe
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.metering.attempt import Asked
from tokenworks.gateway.routing import vocabulary
from tokenworks.gateway.routing.plan import Facts, Judged, default_model, judge
from tokenworks.gateway.routing.plan import tariff as tariff_of
from tokenworks.gateway.routing.prompt_keys import prompt_keys
from tokenworks.gateway.routing.scores import USUAL_OUTPUT
from tokenworks.protocols import codec
from tokenworks.protocols.base import ReadsHeaders
from tokenworks.snapshot.state import State
from tokenworks.snapshot.subscriber import Subscriber

PATH = "/v1/route:explain"
DEFAULT = "/v1/chat/completions"
BODY_SECONDS = 30.0

_ENCODE = msgspec.json.Encoder().encode


class Explain:
    """`surfaces` maps the path that the body is meant for (`?path=`) to its protocol."""

    def __init__(
        self,
        snapshot: Subscriber,
        keys: Keys,
        admission: Admission,
        facts: Facts,
        surfaces: Mapping[str, str],
        limit: int,
    ) -> None:
        self._snapshot = snapshot
        self._keys = keys
        self._admission = admission
        self._facts = facts
        self._surfaces = surfaces
        self._limit = limit

    async def __call__(self, exchange: Exchange) -> None:
        caller = await self._keys.identify(exchange)
        path = parse_qs(exchange.query.decode("latin-1")).get("path", [DEFAULT])[0]
        if path not in self._surfaces:
            known = ", ".join(sorted(self._surfaces))
            raise InvalidRequest(
                f"Invalid value for 'path': nothing is served at {path!r}; known: {known}.", param="path"
            )
        spoken = codec(self._surfaces[path])
        body = await exchange.read_body(self._limit, BODY_SECONDS)
        request = vocabulary.decoded(spoken.decode_request, body, exchange.headers)
        if isinstance(spoken, ReadsHeaders):
            spoken.read_headers(request, exchange.header_texts())
        state = self._snapshot.state
        request.model = request.model or default_model(type(request.task), caller, state).name
        request.id = exchange.request_id
        choices = vocabulary.choices(request, state, caller)
        plans = []
        for choice in choices:
            try:
                judged = judge(choice, caller, state, self._facts)
                tariff = tariff_of(choice, state.models[choice.model], caller, state)
                output = int(min(choice.max_output_tokens or USUAL_OUTPUT, USUAL_OUTPUT))
                usage = Usage(input=len(choice.body) // BYTES_PER_TOKEN, output=output)
                limits = await self._limits(Asked(exchange.request_id, 0, caller, choice), state, judged)
                held = self._held(choice, caller, judged)
                planned = self._plan(choice.model, judged, usage, tariff.at(time.time()), held)
                plans.append(_named(choice) | planned | limits | _looking(caller, choice, state))
            except TokenworksError as error:
                if len(choices) == 1:
                    raise
                plans.append(
                    {"model": choice.model, **_named(choice), "error": {"message": error.message, "code": error.code}}
                )
        await exchange.respond(200, _ENCODE({"object": "route.explanation", "models": plans}))

    async def _limits(self, asked: Asked, state: State, judged: list[Judged]) -> dict[str, Any]:
        """What is left of each limit and which of them would refuse. Of a provider's limits, which are the operator's,
        only that they would."""
        able = [each.target for each in judged if not each.reason]
        try:
            found = await self._admission.left(asked, state, able)
        except Unavailable as error:
            return {"limits": None, "refused_by": None, "limits_unknown": error.message}
        own = [each for each in found if each.limit.scope != "provider"]
        refused = [describe(each.limit) for each in own if each.refuses]
        used_up = dict.fromkeys(each.limit.id for each in found if each.limit.scope == "provider" and each.refuses)
        return {
            "limits": [_limit(each) for each in own],
            "refused_by": refused[0] if refused else None,
            "providers_used_up": list(used_up),
        }

    def _held(self, choice: Request, caller: Caller, judged: list[Judged]) -> Mapping[str, int]:
        """By upstream: tokens of the prompt that a replica of ours has told to hold."""
        held = self._facts.held
        telling = [each.upstream.id for each in judged if each.upstream.local and held.live(each.upstream.id)]
        keys = prompt_keys(choice, caller.project_id) if telling else ()
        return held.tokens(keys, telling) or dict.fromkeys(telling, 0)

    def _plan(
        self, model: str, judged: list[Judged], usage: Usage, price: Price | None, held: Mapping[str, int]
    ) -> dict[str, Any]:
        return {
            "model": model,
            "order": [f"{each.upstream.provider}/{each.target.model}" for each in judged if not each.reason],
            "estimate": {
                "input_tokens": usage.input,
                "output_tokens": usage.output,
                "price_usd": nano_to_usd(price.charge(usage)) if price else None,
            },
            "candidates": [self._candidate(each, usage, held.get(each.upstream.id)) for each in judged],
        }

    def _candidate(self, judged: Judged, usage: Usage, held: int | None) -> dict[str, Any]:
        target, upstream, health = judged.target, judged.upstream, self._facts.health
        seen = self._facts.observed.of(target.upstream, target.model)
        cost = target.cost.at(time.time())
        return {
            "provider": upstream.provider,
            "upstream": upstream.id,
            "model": target.model,
            "eligible": not judged.reason,
            "reason": judged.reason or None,
            "score": None if judged.score is None else round(judged.score, 4),
            "cost_usd": nano_to_usd(cost.charge(usage)) if cost else None,
            "first_token_seconds": _rounded(seen.first_token if seen else None),
            "tokens_per_second": _rounded(seen.throughput if seen else None),
            "cached_share": _rounded(seen.cached_share if seen else None),
            "held_tokens": held,
            "error_rate": _rounded(health.error_rate(target.upstream, target.model)),
            "circuit_open": health.is_open(target),
            "paused_seconds": _rounded(health.paused(upstream.id)),
            "in_flight": self._facts.in_flight.get(upstream.id, 0),
            "labels": {
                "region": upstream.region or None,
                "jurisdiction": upstream.jurisdiction or None,
                "retention_seconds": upstream.retention,
                "trains": upstream.trains,
                "quantization": (upstream.quantization or None),
            },
        }


def _named(request: Request) -> dict[str, Any]:
    """How the virtual model that was named became the one that answers; `bucket` counts to a million."""
    via = request.via
    if via is None:
        return {}
    steps = [
        {"alias": each.alias, "version": each.version, "rule": each.rule or None, "bucket": each.bucket, "to": each.to}
        for each in via.steps
    ]
    return {"alias": {"name": via.alias, "version": via.version, "steps": steps, "shadow": via.shadow or None}}


def _limit(left: Left) -> dict[str, Any]:
    limit, claim, reading = left.limit, left.claim, left.reading
    return {
        "scope": limit.scope,
        "id": limit.id,
        "model": limit.model,
        "kind": limit.kind,
        "window_seconds": limit.window or None,
        "period": limit.period or None,
        "limit": limit.limit,
        "used": reading.used,
        "left": left.room,
        "needed": claim.smallest,
        "reserved": claim.amount,
        "refuses": left.refuses,
        "resets_in_seconds": None if claim.lease else _rounded(reading.resets_in),
    }


def _looking(caller: Caller, choice: Request, state: State) -> dict[str, Any]:
    """The guardrails, in the order in which they look."""
    found = state.guardrails_of(caller.key_id, caller.project_id, choice.model)
    return {"guardrails": [{"name": each.name, "kind": each.kind, "phase": each.phase} for each in found]}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
