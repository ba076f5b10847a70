"""GET /v1/models, /v1/models/{id} and /info: what this key may call."""

from typing import Any
from urllib.parse import unquote

import msgspec

from tokenworks.core.caller import Caller
from tokenworks.core.errors import NotFound, PermissionDenied
from tokenworks.core.request import Prompts
from tokenworks.gateway.admission.keys import Keys
from tokenworks.gateway.edge import headers
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.routing.plan import default_model, find_model
from tokenworks.protocols.anthropic_messages.codec import CODEC
from tokenworks.protocols.anthropic_messages.models import Model, encode_model, encode_models
from tokenworks.protocols.anthropic_messages.versions import VERSION_HEADER
from tokenworks.protocols.tgi.info import info
from tokenworks.snapshot.aliases import as_model
from tokenworks.snapshot.records import AliasRecord, ModelRecord
from tokenworks.snapshot.state import State
from tokenworks.snapshot.subscriber import Subscriber

PREFIX = "/v1/models/"
_ENCODE = msgspec.json.Encoder().encode


class Models:
    def __init__(self, snapshot: Subscriber, keys: Keys) -> None:
        self._snapshot = snapshot
        self._keys = keys

    async def list(self, exchange: Exchange) -> None:
        anthropic = _choose_shape(exchange)
        caller = await self._keys.identify(exchange, None)
        state = self._snapshot.state
        every = {name: as_model(alias, state) for name, alias in state.aliases.items()} | dict(state.models)
        allowed = [model for name, model in every.items() if caller.models is None or name in caller.models]
        allowed.sort(key=lambda model: model.name)
        if anthropic:
            body = encode_models([_told(model) for model in allowed], exchange.query)
        else:
            body = _ENCODE({"object": "list", "data": [_body(model) for model in allowed]})
        await exchange.respond(200, body, headers=headers.of_answer(exchange))

    async def retrieve(self, exchange: Exchange) -> None:
        """The id is the rest of the path; clients send its slashes plain or as %2F."""
        anthropic = _choose_shape(exchange)
        caller = await self._keys.identify(exchange, None)
        name = unquote(exchange.raw_path.decode("ascii", "replace").removeprefix(PREFIX))
        state = self._snapshot.state
        alias = state.aliases.get(name) if name not in state.models else None
        model = find_model(name, caller, state) if alias is None else _virtual(alias, caller, state)
        body = encode_model(_told(model)) if anthropic else _ENCODE(_body(model))
        await exchange.respond(200, body, headers=headers.of_answer(exchange))

    async def moderations(self, exchange: Exchange) -> None:
        """No engine of ours and no provider that we call as one has a model for it."""
        await self._keys.identify(exchange)
        raise NotFound("No model for moderation is deployed here.", param="model", code="model_not_found")

    async def info(self, exchange: Exchange) -> None:
        """The default model, as a server that has only one describes it."""
        caller = await self._keys.identify(exchange, None)
        model = default_model(Prompts, caller, self._snapshot.state)
        await exchange.respond(200, info(model.name, context_length=model.context_length))


def _choose_shape(exchange: Exchange) -> bool:
    """Whether a client of Anthropic's asks, who says so by the version of the protocol; errors then have its shape."""
    if exchange.header(VERSION_HEADER.encode()) is None:
        return False
    exchange.codec = CODEC
    return True


def _virtual(alias: AliasRecord, caller: Caller, state: State) -> ModelRecord:
    if caller.models is not None and alias.name not in caller.models:
        raise PermissionDenied(f"This API key may not use the model '{alias.name}'.", param="model")
    return as_model(alias, state)


def _told(model: ModelRecord) -> Model:
    return Model(model.name, model.created, model.context_length, model.max_output, model.capabilities)


def _body(model: ModelRecord) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "context_length": model.context_length,
        "max_output": model.max_output,
        "capabilities": list(model.capabilities),
    }
