"""What Replicate's clients ask beside predictions: models, their versions, the account, hardware, the webhooks' secret.

They ask for models on the paths on which OpenAI's clients ask, so the `User-Agent` decides: all of theirs begin with
`replicate`. The method QUERY and everything else here is theirs alone.
"""

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import msgspec

from tokenworks.core.caller import Caller
from tokenworks.core.errors import MethodNotAllowed, NotFound
from tokenworks.gateway.answers.intake import Intake
from tokenworks.gateway.edge import headers
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.protocols.replicate.codec import CODEC
from tokenworks.protocols.replicate.models import encode_page, model_body, public_names, shown, version_body, version_id
from tokenworks.snapshot.aliases import as_model
from tokenworks.snapshot.records import ModelRecord
from tokenworks.snapshot.sealing import webhook_secret

Handler = Callable[[Exchange], Awaitable[None]]

MODELS = "/v1/models/"
SEARCH_BYTES = 64 * 1024
SEARCH_SECONDS = 10.0
HARDWARE = [{"sku": "auto", "name": "Chosen by the service"}]
_ENCODE = msgspec.json.Encoder().encode


class Catalog:
    def __init__(self, intake: Intake, cluster_key: bytes) -> None:
        self._intake = intake
        self._cluster_key = cluster_key

    def find(self, named: str, caller: Caller) -> ModelRecord:
        """`named` is `owner/name`, `owner/name:version` or a version."""
        models = self._allowed(caller)
        name, _, version = named.partition(":")
        for public in public_names(name):
            if public in models and version in ("", version_id(public)):
                return models[public]
        for public, model in models.items():
            if version_id(public) == named:
                return model
        raise NotFound(f"There is no model or version '{named}', or this key may not use it.", code="model_not_found")

    def beside(self, other: Handler, own: Handler) -> Handler:
        """`own` for Replicate's clients, `other` for everybody else's."""

        async def choose(exchange: Exchange) -> None:
            theirs = (exchange.header(b"user-agent") or b"").lower().startswith(b"replicate")
            await (own if theirs else other)(exchange)

        return choose

    async def models(self, exchange: Exchange) -> None:
        caller = await self._identify(exchange)
        await self._page(exchange, list(self._allowed(caller).values()))

    async def search(self, exchange: Exchange) -> None:
        """The body is what is searched for: every word must be in the model's name."""
        caller = await self._identify(exchange)
        text = (await exchange.read_body(SEARCH_BYTES, SEARCH_SECONDS)).decode("utf-8", "replace")
        words = text.lower().split()
        found = [model for name, model in self._allowed(caller).items() if all(word in shown(name) for word in words)]
        await self._page(exchange, found)

    async def model(self, exchange: Exchange) -> None:
        """GET /v1/models/{owner}/{name}, .../versions, .../versions/{id}."""
        caller = await self._identify(exchange)
        if exchange.method != "GET":
            raise MethodNotAllowed(f"{exchange.method} is not possible on {exchange.path}.")
        name, versions, version = unquote(exchange.path.removeprefix(MODELS)).partition("/versions")
        model = self.find(name + version.replace("/", ":", 1), caller)
        if not versions:
            await self._respond(exchange, _ENCODE(self._body(exchange, model)))
        elif not version:
            await self._respond(exchange, encode_page([version_body(model.name, model.created)]))
        else:
            await self._respond(exchange, _ENCODE(version_body(model.name, model.created)))

    async def account(self, exchange: Exchange) -> None:
        caller = await self._identify(exchange)
        name = caller.organization_id
        body = {"type": "organization", "username": name, "name": name, "github_url": None}
        await self._respond(exchange, _ENCODE(body))

    async def hardware(self, exchange: Exchange) -> None:
        await self._identify(exchange)
        await self._respond(exchange, _ENCODE(HARDWARE))

    async def secret(self, exchange: Exchange) -> None:
        """What signs this project's webhooks."""
        caller = await self._identify(exchange)
        await self._respond(exchange, _ENCODE({"key": webhook_secret(self._cluster_key, caller.project_id)}))

    async def _identify(self, exchange: Exchange) -> Caller:
        exchange.codec = CODEC
        return await self._intake.identify(exchange)

    def _allowed(self, caller: Caller) -> dict[str, ModelRecord]:
        state = self._intake.state
        models = {name: as_model(alias, state) for name, alias in state.aliases.items()} | dict(state.models)
        return {name: models[name] for name in sorted(models) if caller.models is None or name in caller.models}

    async def _page(self, exchange: Exchange, models: list[ModelRecord]) -> None:
        await self._respond(exchange, encode_page([self._body(exchange, model) for model in models]))

    def _body(self, exchange: Exchange, model: ModelRecord) -> dict[str, object]:
        able = ", ".join(model.capabilities)
        description = f"{model.name}{f' ({able})' if able else ''}"
        return model_body(model.name, model.created, f"{origin(exchange)}{MODELS}{shown(model.name)}", description)

    async def _respond(self, exchange: Exchange, body: bytes) -> None:
        await exchange.respond(200, body, headers=headers.of_answer(exchange))


def origin(exchange: Exchange) -> str:
    """The caller's way to this service."""
    host = (exchange.header(b"host") or b"localhost").decode("latin-1")
    scheme = "https" if exchange.header(b"x-forwarded-proto") == b"https" else "http"
    return f"{scheme}://{host}"
