"""Step 4 of a request: model -> targets in the order in which they are tried. Pure functions of what they are given;
planner.py gives them what this gateway has seen and remembers what they said.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tokenworks.core.aliases.records import Resolution
from tokenworks.core.caller import Caller
from tokenworks.core.errors import InvalidRequest, NotFound, PermissionDenied, TokenworksError, Unavailable
from tokenworks.core.needs import OF_TASKS, REFUSED, needed, only_measures
from tokenworks.core.price import Tariff
from tokenworks.core.request import Prompts, Request
from tokenworks.core.routing import ORDER
from tokenworks.core.target import RouteLimits, Target
from tokenworks.core.usage import BYTES_PER_TOKEN
from tokenworks.gateway.admission.residency import RESIDENCY_DENIED, Here
from tokenworks.gateway.failover.health import Health
from tokenworks.gateway.routing.eligible import exclusion
from tokenworks.gateway.routing.held import Held
from tokenworks.gateway.routing.observed import Observed
from tokenworks.gateway.routing.scores import USUAL_OUTPUT, Candidate, candidate, scores
from tokenworks.protocols.carried import wire_name
from tokenworks.snapshot.records import ModelRecord, UpstreamRecord
from tokenworks.snapshot.residency import breach
from tokenworks.snapshot.state import State

RETRY_SECONDS = 1.0
NO_PROVIDER = "no_eligible_provider"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a plan depends on beside the snapshot. `in_flight` counts running attempts by upstream id."""

    in_flight: Mapping[str, int] = field(default_factory=dict)
    health: Health = field(default_factory=Health)
    observed: Observed = field(default_factory=Observed)
    here: Here = Here()
    held: Held = field(default_factory=Held)


@dataclass(frozen=True, slots=True)
class Judged:
    """One target: `reason` says why it may not answer, "" that it may. `score` None: not compared with the others.

    `forbidden`: a residency policy is the reason, which holds whatever else is asked for."""

    target: Target
    upstream: UpstreamRecord
    reason: str
    candidate: Candidate | None = None
    score: float | None = None
    forbidden: bool = False


def plan(request: Request, caller: Caller, state: State, facts: Facts) -> list[Target]:
    """At least one target.

    NotFound for an unknown model, PermissionDenied when the key may not use it or nobody may answer it, InvalidRequest
    for what it cannot do or when the caller's wishes leave nobody, Unavailable while none of its replicas is ready.
    """
    judged = judge(request, caller, state, facts)
    able = [each.target for each in judged if not each.reason]
    if not able:
        raise nobody(request, caller, judged)
    return able


def judge(request: Request, caller: Caller, state: State, facts: Facts) -> list[Judged]:
    """Every target of the model, those that may answer first and in their order. Raises as `plan`, but for nobody."""
    model = find_model(request.model, caller, state, request.via)
    _require_capabilities(request, model)
    _fit(request, model)
    now = time.time()
    limits = RouteLimits(model.limits.connect, model.limits.first_token, model.limits.idle, model.limits.total)
    price = tariff(request, model, caller, state)
    policies = state.policies(caller.organization_id, caller.project_id)
    facts.here.require_told(policies, state)
    able: list[Judged] = []
    barred: list[Judged] = []
    for record in model.targets:
        upstream = state.upstreams.get(record.upstream)
        if upstream is None:
            continue
        window = record.context_length or (model.context_length if upstream.local else None)
        target = Target(record.upstream, record.model, limits, price, record.cost, window)
        if forbidden := breach(policies, upstream) if policies else None:
            barred.append(Judged(target, upstream, forbidden, forbidden=True))
            continue
        reason = exclusion(request, caller, record, upstream, price, now)
        (barred if reason else able).append(Judged(target, upstream, reason or ""))
    return _narrowed(request, _ordered(request, model, able, facts, now)) + barred


def _ordered(request: Request, model: ModelRecord, able: list[Judged], facts: Facts, now: float) -> list[Judged]:
    wanted, sort = request.routing, sort_of(request, model)
    if sort == ORDER:
        least_busy_first(able, facts)
    else:
        able = _weighed(request, able, sort, facts, now)
    if wanted is None:
        return able
    for percentile, most in wanted.max_latency.items():
        able.sort(key=lambda each: (facts.health.first_token(each.target, percentile) or 0.0) > most)
    for least in wanted.min_throughput.values():
        able.sort(key=lambda each: (_throughput(each, facts) or least) < least)
    if wanted.order:
        places = {provider: place for place, provider in enumerate(wanted.order)}
        able.sort(key=lambda each: places.get(each.upstream.provider, len(places)))
    return able


def sort_of(request: Request, model: ModelRecord) -> str:
    """How its targets are ordered, by the names of core.routing."""
    return (request.routing.sort if request.routing else "") or model.policy.sort


def least_busy_first(able: list[Judged], facts: Facts) -> None:
    """Replicas of ours take turns; everybody else keeps his place."""
    able.sort(key=lambda each: facts.in_flight.get(each.upstream.id, 0) if each.upstream.local else 0)


def _weighed(request: Request, able: list[Judged], sort: str, facts: Facts, now: float) -> list[Judged]:
    prompt = len(request.body) / BYTES_PER_TOKEN
    candidates = []
    for each in able:
        target = each.target
        seen = facts.observed.of(target.upstream, target.model)
        usual = (seen.output_per_answer if seen else None) or USUAL_OUTPUT
        output = min(usual, request.max_output_tokens or usual)
        failures = facts.health.error_rate(target.upstream, target.model)
        candidates.append(candidate(target.cost, seen, failures, prompt, output, now))
    found = scores(candidates, sort)
    weighed = [
        Judged(each.target, each.upstream, "", compared, score)
        for each, compared, score in zip(able, candidates, found, strict=True)
    ]
    weighed.sort(key=lambda each: (facts.health.paused(each.upstream.id) > 0, each.score))
    return weighed


def _throughput(judged: Judged, facts: Facts) -> float | None:
    seen = facts.observed.of(judged.target.upstream, judged.target.model)
    return seen.throughput if seen else None


def _narrowed(request: Request, able: list[Judged]) -> list[Judged]:
    """Without fallbacks there is one target: the first of those that were asked for."""
    if request.routing is not None and not request.routing.allow_fallbacks and not request.routing.order:
        return able[:1]
    return able


def nobody(request: Request, caller: Caller, judged: list[Judged]) -> TokenworksError:
    """Why no target may answer: a residency policy, the caller's wishes, the key's bounds, or that none is ready."""
    allowed = [each for each in judged if not each.forbidden]
    barred = [each for each in allowed if each.upstream.state == "ready"]
    if allowed and not barred:
        return _not_ready(request.model, [each.upstream for each in allowed])
    told = barred + [each for each in judged if each.forbidden]
    reasons = "; ".join(dict.fromkeys(f"{each.upstream.provider} {each.reason}" for each in told))
    message = f"Nobody may answer this request for '{request.model}': {reasons}."
    if judged and not allowed:
        return PermissionDenied(message, code=RESIDENCY_DENIED)
    if not judged:
        return _not_ready(request.model, [])
    if caller.regions is not None and all(each.upstream.region not in caller.regions for each in barred):
        return PermissionDenied(message, code="region_denied")
    return InvalidRequest(message, param="provider", code=NO_PROVIDER)


def find_model(name: str, caller: Caller, state: State, via: Resolution | None = None) -> ModelRecord:
    """`via`: how the virtual model that the caller named became `name`. The key must allow what its caller names."""
    named = via.alias if via is not None else name
    model = state.models.get(name)
    if model is None and named not in state.aliases:
        raise NotFound(
            f"The model '{name}' does not exist. GET /v1/models lists the models of this service.",
            param="model",
            code="model_not_found",
        )
    if caller.models is not None and named not in caller.models:
        raise PermissionDenied(f"This API key may not use the model '{named}'.", param="model")
    if model is None:
        raise Unavailable(
            f"The virtual model '{named}' leads to '{name}', which does not exist." if via is not None else
            f"The virtual model '{named}' leads nowhere.",
            code="alias_broken",
        )  # fmt: skip
    return model


def tariff(request: Request, model: ModelRecord, caller: Caller, state: State) -> Tariff:
    """What the caller pays: the price of the virtual model that was named, or else of the one that answers."""
    alias = state.aliases.get(request.via.alias) if request.via is not None else None
    own = alias.tariff(caller.organization_id, caller.project_id) if alias is not None else None
    return own or model.tariff(caller.organization_id, caller.project_id)


def default_model(task: type, caller: Caller, state: State) -> ModelRecord:
    """What answers a request that names no model: of those that can do the task, the service's default."""
    allowed = [m for m in state.models.values() if caller.models is None or m.name in caller.models]
    capability = OF_TASKS.get(task)
    able = [
        model
        for model in allowed
        if (not only_measures(model.capabilities) if capability is None else capability in model.capabilities)
    ]
    chosen = [model for model in able if model.default] or able or [model for model in allowed if model.default]
    if not chosen:
        raise InvalidRequest("No model was named and this service has no default one.", param="model")
    return chosen[0]


def _require_capabilities(request: Request, model: ModelRecord) -> None:
    """Replicas of ours say what their model can do; a provider's endpoint judges for itself."""
    if not model.capabilities:
        return
    if type(request.task) not in OF_TASKS and (does := only_measures(model.capabilities)) is not None:
        asked = "text completions" if isinstance(request.task, Prompts) else "chat"
        message = f"The model '{model.name}' does not take {asked}: it can only {REFUSED[does][0]}."
        raise InvalidRequest(message, param="model")
    for capability in needed(request):
        if capability not in model.capabilities and capability in REFUSED:
            what, param = REFUSED[capability]
            raise InvalidRequest(f"The model '{model.name}' cannot {what}.", param=param)


def _fit(request: Request, model: ModelRecord) -> None:
    """What a model of ours cannot do but may be asked for without harm: less output, no reasoning. It is reported."""
    if not model.capabilities:
        return
    if model.max_output is not None and (request.max_output_tokens or 0) > model.max_output:
        request.ignored.append(wire_name("max_output_tokens", request))
        request.max_output_tokens, request.unusual = model.max_output, True
    if request.reasoning is not None and "reasoning" not in model.capabilities:
        request.ignored.append(wire_name("reasoning", request))


def _not_ready(name: str, upstreams: list[UpstreamRecord]) -> Unavailable:
    states = "; ".join(f"{each.id} is {each.state}{f': {each.reason}' if each.reason else ''}" for each in upstreams)
    return Unavailable(
        f"The model '{name}' is not ready: {states or 'no replica has reported yet'}.",
        code="model_not_ready",
        retry_after=RETRY_SECONDS,
    )
