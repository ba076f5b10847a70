"""GET /v1/models, /v1/models/{id} and /info: what this key may call."""

from typing import Any
from urllib.parse import unquote

import msgspec

from tokenworks.core.request import Prompts
from tokenworks.gateway.admission.keys import Keys
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.routing.plan import default_model, find_model
from tokenworks.protocols.tgi.info import info
from tokenworks.snapshot.records import ModelRecord
from tokenworks.snapshot.subscriber import Subscriber

PREFIX = "/v1/models/"
_ENCODE = msgspec.json.Encoder().encode


class Models:
    def __init__(self, snapshot: Subscriber, keys: Keys) -> None:
        self._snapshot = snapshot
        self._keys = keys

    async def list(self, exchange: Exchange) -> None:
        caller = await self._keys.identify(exchange)
        allowed = [m for m in self._snapshot.state.models.values() if caller.models is None or m.name in caller.models]
        data = [_body(model) for model in sorted(allowed, key=lambda model: model.name)]
        await exchange.respond(200, _ENCODE({"object": "list", "data": data}))

    async def retrieve(self, exchange: Exchange) -> None:
        """The id is the rest of the path; clients send its slashes plain or as %2F."""
        caller = await self._keys.identify(exchange)
        name = unquote(exchange.raw_path.decode("ascii", "replace").removeprefix(PREFIX))
        await exchange.respond(200, _ENCODE(_body(find_model(name, caller, self._snapshot.state))))

    async def info(self, exchange: Exchange) -> None:
        """The default model, as a server that has only one describes it."""
        caller = await self._keys.identify(exchange)
        model = default_model(Prompts, caller, self._snapshot.state)
        await exchange.respond(200, info(model.name, context_length=model.context_length))


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
