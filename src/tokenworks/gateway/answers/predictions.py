"""`/v1/predictions` and everything below it, and the paths of models and deployments on which predictions are made."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import unquote

import msgspec

from tokenworks.answers.records import PREDICTION, AnswerRecord, Save, WebhookRecord
from tokenworks.core.caller import Caller
from tokenworks.core.errors import InvalidRequest, MethodNotAllowed, NotFound
from tokenworks.core.request import Request
from tokenworks.gateway.answers.catalog import Catalog, origin
from tokenworks.gateway.answers.intake import Intake
from tokenworks.gateway.answers.prediction import RunningPrediction, ending, lifetime, waiting
from tokenworks.gateway.answers.reading import Reading, query, relay
from tokenworks.gateway.answers.runs import Run, Runs
from tokenworks.gateway.answers.store import AnswerStore
from tokenworks.gateway.edge import headers
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.routing import vocabulary
from tokenworks.journal.records import Settled
from tokenworks.protocols.base import Codec
from tokenworks.protocols.replicate.codec import CODEC
from tokenworks.protocols.replicate.models import encode_page, shown, version_id
from tokenworks.protocols.replicate.prediction import urls
from tokenworks.protocols.replicate.requests import decode_for, decode_request
from tokenworks.protocols.replicate.responses import new_prediction
from tokenworks.protocols.sse import event_of, id_of
from tokenworks.protocols.validation import top_level
from tokenworks.snapshot.residency import WEBHOOKS

PATH = "/v1/predictions"
PREFIX = "/v1/predictions/"
DEPLOYMENTS = "/v1/deployments/"
PAGE = 100
DEFAULT_EVENTS = ("output", "completed")
"""What a webhook hears of when the caller names nothing."""


class Predictions:
    def __init__(self, intake: Intake, store: AnswerStore, runs: Runs, catalog: Catalog) -> None:
        self._intake = intake
        self._store = store
        self._runs = runs
        self._catalog = catalog

    async def create(self, exchange: Exchange, codec: Codec = CODEC) -> None:
        """The body says which model."""
        await self._create(exchange, None)

    async def create_for(self, exchange: Exchange, prefix: str) -> None:
        """The path says which model: `prefix` owner/name/predictions."""
        exchange.codec = CODEC
        name, _, verb = unquote(exchange.path.removeprefix(prefix)).rpartition("/")
        if verb != "predictions" or not name:
            raise NotFound(f"There is nothing at {exchange.path}.", code="unknown_path")
        if exchange.method != "POST":
            raise MethodNotAllowed(f"{exchange.method} is not possible on {exchange.path}.")
        await self._create(exchange, name)

    async def list(self, exchange: Exchange) -> None:
        """Newest first."""
        exchange.codec = CODEC
        caller = await self._intake.identify(exchange)
        after = query(exchange).get("cursor")
        page = await self._store.page(caller.project_id, PREDICTION, limit=PAGE, after=after)
        more = f"{origin(exchange)}{PATH}?cursor={page.answers[-1].id}" if page.more else None
        results = [msgspec.Raw(record.body) for record in page.answers]
        await self._respond(exchange, 200, encode_page(results, more))

    async def below(self, exchange: Exchange) -> None:
        """GET /{id}; POST /{id}/cancel; GET /{id}/stream."""
        exchange.codec = CODEC
        caller = await self._intake.identify(exchange)
        prediction_id, _, verb = unquote(exchange.path.removeprefix(PREFIX)).partition("/")
        match exchange.method, verb:
            case "GET", "":
                record, run = await self._find(caller, prediction_id)
                await self._respond(exchange, 200, record.body if run is None else run.subject.body())
            case "GET", "stream":
                await self._stream(exchange, caller, prediction_id)
            case "POST", "cancel":
                await self._cancel(exchange, caller, prediction_id)
            case _, "" | "cancel" | "stream":
                raise MethodNotAllowed(f"{exchange.method} is not possible on {exchange.path}.")
            case _:
                raise NotFound(f"There is nothing at {exchange.path}.", code="unknown_path")

    async def _create(self, exchange: Exchange, named: str | None) -> None:
        exchange.codec = CODEC
        patience, life = waiting(exchange), lifetime(exchange)
        async with self._intake.received(exchange) as (caller, body):
            read = decode_request if named is None else partial(decode_for, named)
            request = vocabulary.decoded(read, body, exchange.headers)
            run = await self._begin(exchange, caller, request)
            if life is not None:
                asyncio.get_running_loop().call_later(life, run.cancel)
            if patience:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(patience):
                        await run.ended.wait()
        # A blocking client takes every status but `starting` for the last one.
        told = run.subject.body() if run.ended.is_set() or not patience else run.first.body
        await self._respond(exchange, 201, told)

    async def _begin(self, exchange: Exchange, caller: Caller, request: Request) -> Run:
        model = self._catalog.find(request.options["version"], caller)
        request.model, request.stream = model.name, True
        request.options["version"] = version_id(model.name)
        webhook = _webhook(request)
        self._intake.require_storable(caller, also=() if webhook is None else (WEBHOOKS,))
        self._intake.check(exchange, CODEC, caller, request)
        created = time.time()
        places = urls(origin(exchange), CODEC.response_id(exchange.request_id))
        places.pop("web")  # there is no such page here
        prediction = new_prediction(request, CODEC.response_id(exchange.request_id), created, places)
        prediction.model = shown(model.name)
        subject = RunningPrediction(prediction, int(created))
        first = Save(
            kind=PREDICTION,
            project_id=caller.project_id,
            model=model.name,
            status=subject.status,
            created_at=int(created),
            body=subject.body(),
            create=True,
            webhook=webhook,
        )

        async def work(own: Exchange) -> Settled:
            return await self._intake.pipeline.serve(own, CODEC, caller, request, time.perf_counter_ns())

        try:
            return await self._runs.begin(subject, first, exchange, work)
        except InvalidRequest as error:
            error.param = error.param or "webhook"
            raise

    async def _stream(self, exchange: Exchange, caller: Caller, prediction_id: str) -> None:
        record, run = await self._find(caller, prediction_id)
        blocks = self._stored_events(caller, record) if run is None else run.follow()
        after = exchange.header(b"last-event-id")
        await relay(exchange, CODEC, blocks if after is None else _later(blocks, after))

    async def _stored_events(self, caller: Caller, record: AnswerRecord) -> AsyncIterator[bytes]:
        reading, count, complete = Reading(self._store, caller.project_id, record), 0, False
        async for block in reading.blocks():
            yield block
            count, complete = count + 1, event_of(block) == b"done"
        if not complete:
            answer = reading.answer
            yield ending(answer.status, f"{answer.created_at}:{count}").rstrip(b"\n")

    async def _cancel(self, exchange: Exchange, caller: Caller, prediction_id: str) -> None:
        record, run = await self._find(caller, prediction_id)
        if run is not None:
            await run.cancelled()
        if not record.ended:
            record = await self._store.cancel(caller.project_id, PREDICTION, prediction_id)
        await self._respond(exchange, 200, record.body)

    async def _find(self, caller: Caller, prediction_id: str) -> tuple[AnswerRecord, Run | None]:
        """What control has of it, and the run where it runs here. NotFound also for another project's."""
        if not (prediction_id.isascii() and prediction_id.isalnum() and len(prediction_id) <= 128):
            raise NotFound(f"There is no prediction '{prediction_id}'.")
        try:
            record = await self._store.get(caller.project_id, PREDICTION, prediction_id)
        except NotFound:
            raise NotFound(f"There is no prediction '{prediction_id}'.") from None
        return record, None if record.ended else self._runs.find(caller.project_id, prediction_id)

    async def _respond(self, exchange: Exchange, status: int, body: bytes) -> None:
        await exchange.respond(status, body, headers=headers.of_answer(exchange))


def _webhook(request: Request) -> WebhookRecord | None:
    """`webhook_completed` is what clients sent before there was a filter."""
    wanted, url = request.options["webhook_events_filter"], request.options["webhook"]
    older = top_level(request.body).get("webhook_completed")
    if url is None and older is not None:
        try:
            url, wanted = msgspec.json.decode(older, type=str | None), ["completed"]
        except msgspec.ValidationError:
            raise InvalidRequest("'webhook_completed' must be a URL.", param="webhook_completed") from None
    if url is None:
        return None
    return WebhookRecord(url, tuple(dict.fromkeys(DEFAULT_EVENTS if wanted is None else wanted)))


async def _later(blocks: AsyncIterator[bytes], after: bytes) -> AsyncIterator[bytes]:
    """Those after the event with this id; all of them when there is none."""
    passed: list[bytes] = []
    found = False
    async for block in blocks:
        if found:
            yield block
        else:
            passed.append(block)
            found = id_of(block) == after
    if not found:
        for block in passed:
            yield block
