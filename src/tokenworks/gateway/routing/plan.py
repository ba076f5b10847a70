"""Step 4 of a request: model -> targets in the order in which they are tried. A pure function of what it is given."""

from collections.abc import Mapping

from tokenworks.core.caller import Caller
from tokenworks.core.errors import InvalidRequest, NotFound, PermissionDenied, Unavailable
from tokenworks.core.messages import Image
from tokenworks.core.request import Conversation, Embeddings, Request, Rerank
from tokenworks.core.target import RouteLimits, Target
from tokenworks.protocols.carried import wire_name
from tokenworks.snapshot.records import ModelRecord, UpstreamRecord
from tokenworks.snapshot.state import State

RETRY_SECONDS = 1.0


def plan(request: Request, caller: Caller, state: State, in_flight: Mapping[str, int]) -> list[Target]:
    """At least one target. `in_flight` counts running attempts by upstream id: replicas with fewer come first.

    NotFound for an unknown model, PermissionDenied when the key may not use it, InvalidRequest for what it cannot
    do, Unavailable while none of its replicas is ready.
    """
    model = find_model(request.model, caller, state)
    _require_capabilities(request, model)
    _fit(request, model)
    known = [(target, state.upstreams.get(target.upstream)) for target in model.targets]
    ready = [(target, upstream) for target, upstream in known if upstream is not None and upstream.state == "ready"]
    if not ready:
        raise _not_ready(model, [upstream for _, upstream in known if upstream is not None])
    ready.sort(key=lambda pair: in_flight.get(pair[1].id, 0) if pair[1].local else 0)
    limits = RouteLimits(model.limits.connect, model.limits.first_token, model.limits.idle, model.limits.total)
    price = model.tariff(caller.organization_id, caller.project_id)
    return [Target(target.upstream, target.model, limits, price, target.cost) for target, _ in ready]


def find_model(name: str, caller: Caller, state: State) -> ModelRecord:
    model = state.models.get(name)
    if model is None or (caller.models is not None and name not in caller.models):
        if model is not None:
            raise PermissionDenied(f"This API key may not use the model '{name}'.", param="model")
        raise NotFound(
            f"The model '{name}' does not exist. GET /v1/models lists the models of this service.",
            param="model",
            code="model_not_found",
        )
    return model


def default_model(task: type, caller: Caller, state: State) -> ModelRecord:
    """What answers a request that names no model: of those that can do the task, the service's default."""
    allowed = [m for m in state.models.values() if caller.models is None or m.name in caller.models]
    needed = _CAPABILITIES.get(task)
    able = [model for model in allowed if needed is None or needed[0] in model.capabilities]
    chosen = [model for model in able if model.default] or able or [model for model in allowed if model.default]
    if not chosen:
        raise InvalidRequest("No model was named and this service has no default one.", param="model")
    return chosen[0]


_CAPABILITIES = {Embeddings: ("embeddings", "make embeddings"), Rerank: ("rerank", "rank documents")}


def _require_capabilities(request: Request, model: ModelRecord) -> None:
    """Replicas of ours say what their model can do; a provider's endpoint judges for itself."""
    if not model.capabilities:
        return
    if (needed := _CAPABILITIES.get(type(request.task))) and needed[0] not in model.capabilities:
        raise InvalidRequest(f"The model '{model.name}' cannot {needed[1]}.", param="model")
    if not isinstance(request.task, Conversation):
        return
    parts = [part for message in request.task.messages for part in message.parts]
    if "vision" not in model.capabilities and any(isinstance(part, Image) for part in parts):
        raise InvalidRequest(f"The model '{model.name}' cannot read images.", param="messages")
    if "tools" not in model.capabilities and request.task.tools:
        raise InvalidRequest(f"The model '{model.name}' cannot call tools.", param="tools")
    if "json_schema" not in model.capabilities and request.response_format is not None:
        raise InvalidRequest(f"The model '{model.name}' cannot follow a JSON schema.", param="response_format")


def _fit(request: Request, model: ModelRecord) -> None:
    """What a model of ours cannot do but may be asked for without harm: less output, no reasoning. It is reported."""
    if not model.capabilities:
        return
    if model.max_output is not None and (request.max_output_tokens or 0) > model.max_output:
        request.ignored.append(wire_name("max_output_tokens", request))
        request.max_output_tokens, request.unusual = model.max_output, True
    if request.reasoning is not None and "reasoning" not in model.capabilities:
        request.ignored.append(wire_name("reasoning", request))


def _not_ready(model: ModelRecord, upstreams: list[UpstreamRecord]) -> Unavailable:
    states = "; ".join(f"{each.id} is {each.state}{f': {each.reason}' if each.reason else ''}" for each in upstreams)
    return Unavailable(
        f"The model '{model.name}' is not ready: {states or 'no replica has reported yet'}.",
        code="model_not_ready",
        retry_after=RETRY_SECONDS,
    )
