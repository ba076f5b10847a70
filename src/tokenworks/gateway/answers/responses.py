"""`/v1/responses` and everything below it: created with a memory, read again, cancelled, removed, counted."""

import time
from collections.abc import AsyncIterator
from urllib.parse import unquote

import msgspec

from tokenworks.answers.records import RESPONSE, AnswerRecord
from tokenworks.core.caller import Caller
from tokenworks.core.errors import InvalidRequest, MethodNotAllowed, NotFound
from tokenworks.core.request import Request
from tokenworks.gateway.answers.background import BackgroundResponse
from tokenworks.gateway.answers.intake import Intake
from tokenworks.gateway.answers.keeping import Keeping, response_save
from tokenworks.gateway.answers.reading import Reading, query, relay, whole_number
from tokenworks.gateway.answers.runs import Run, Runs
from tokenworks.gateway.answers.store import AnswerStore
from tokenworks.gateway.edge import headers
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.routing import vocabulary
from tokenworks.journal.records import Settled
from tokenworks.protocols.base import Codec
from tokenworks.protocols.openai_responses import stored
from tokenworks.protocols.openai_responses.codec import CODEC

PREFIX = "/v1/responses/"
INPUT_TOKENS = "/v1/responses/input_tokens"
UNSTORED = " Send `store: false`."
_ENCODE = msgspec.json.Encoder().encode
_ITEMS: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])


class Responses:
    def __init__(self, intake: Intake, store: AnswerStore, runs: Runs) -> None:
        self._intake = intake
        self._store = store
        self._runs = runs

    async def create(self, exchange: Exchange, codec: Codec) -> None:
        """Answer one request, or raise the one error that the edge tells the caller."""
        arrived = time.perf_counter_ns()
        async with self._intake.received(exchange) as (caller, body):
            asked = vocabulary.decoded(codec.decode_request, body, exchange.headers)
            store, background = asked.options.get("store", True), asked.options.get("background", False)
            if background and not store:
                raise InvalidRequest("'background' needs 'store': the answer is fetched later.", param="background")
            if background:
                self._intake.require_storable(caller, UNSTORED)
                await self._run(exchange, codec, caller, asked, await self.continued(caller, asked))
            else:
                await self.serve(exchange, codec, caller, asked, arrived)

    async def serve(
        self, exchange: Exchange, codec: Codec, caller: Caller, asked: Request, arrived: int, first_attempt: int = 1
    ) -> Settled:
        """As the pipeline's, with a memory."""
        request = await self.continued(caller, asked)
        if asked.options.get("store", True):
            self._intake.require_storable(caller, UNSTORED)
            exchange.keeper = Keeping(self._store, caller.project_id, asked)
        return await self._intake.pipeline.serve(exchange, codec, caller, request, arrived, first_attempt)

    async def input_tokens(self, exchange: Exchange) -> None:
        """What the prompt would cost, with everything that was said before it."""
        exchange.codec = CODEC
        async with self._intake.received(exchange) as (caller, body):
            request = await self.continued(caller, vocabulary.decoded(CODEC.decode_request, body, exchange.headers))
            tokens = await self._intake.count(caller, request)
        await self._respond(exchange, _ENCODE({"object": "response.input_tokens", "input_tokens": tokens}))

    async def continued(self, caller: Caller, asked: Request) -> Request:
        """The request with everything that was said before it. NotFound when that is not this project's."""
        previous = asked.options.get("previous_response_id")
        if previous is None:
            return asked
        try:
            chain = await self._store.chain(caller.project_id, RESPONSE, _id(previous))
        except NotFound as error:
            raise NotFound(
                f"Previous response with id '{previous}' not found, or one of those before it is gone.",
                param="previous_response_id",
                code="previous_response_not_found",
            ) from error
        if not chain[-1].ended:
            raise InvalidRequest(f"The response '{previous}' has not ended yet.", param="previous_response_id")
        request = stored.continue_from(asked, stored.history([_stored(record) for record in chain]))
        request.routing, request.labels, request.session = asked.routing, asked.labels, asked.session
        return request

    async def below(self, exchange: Exchange) -> None:
        """GET, DELETE /{id}; POST /{id}/cancel; GET /{id}/input_items."""
        exchange.codec = CODEC
        caller = await self._intake.identify(exchange)
        response_id, _, verb = unquote(exchange.path.removeprefix(PREFIX)).partition("/")
        match exchange.method, verb:
            case "GET", "":
                await self._retrieve(exchange, caller, response_id)
            case "DELETE", "":
                await self._delete(exchange, caller, response_id)
            case "POST", "cancel":
                await self._cancel(exchange, caller, response_id)
            case "GET", "input_items":
                await self._input_items(exchange, caller, response_id)
            case _, "" | "cancel" | "input_items":
                raise MethodNotAllowed(f"{exchange.method} is not possible on {exchange.path}.")
            case _:
                raise NotFound(f"There is nothing at {exchange.path}.", code="unknown_path")

    async def _run(self, exchange: Exchange, codec: Codec, caller: Caller, asked: Request, request: Request) -> None:
        self._intake.check(exchange, codec, caller, request)
        created = int(time.time())
        subject = BackgroundResponse(request, codec.response_id(exchange.request_id), created)
        first, _ = response_save(asked, caller.project_id, subject.body(), ended=False)

        async def work(own: Exchange) -> Settled:
            return await self._intake.pipeline.serve(own, codec, caller, request, time.perf_counter_ns())

        run = await self._runs.begin(subject, first, exchange, work)
        if request.stream:
            await relay(exchange, codec, run.follow())
        else:
            await self._respond(exchange, first.body)

    async def _retrieve(self, exchange: Exchange, caller: Caller, id: str) -> None:
        given = query(exchange)
        record, run = await self._find(caller, id)
        if given.get("stream", "false") != "true":
            await self._respond(exchange, record.body if run is None else run.subject.body())
            return
        after = whole_number(given["starting_after"], "starting_after") if "starting_after" in given else -1
        if (run is not None and not run.subject.stream) or (run is None and record.ended and not record.event_count):
            raise InvalidRequest("This response was not created with 'stream': it has no events.", param="stream")
        blocks = self._stored_events(caller, record) if run is None else run.follow()
        await relay(exchange, CODEC, _later(blocks, after))

    async def _stored_events(self, caller: Caller, record: AnswerRecord) -> AsyncIterator[bytes]:
        reading, count, complete = Reading(self._store, caller.project_id, record), 0, False
        async for block in reading.blocks():
            yield block
            count, complete = stored.sequence_number(block) + 1, stored.ended_response(block) is not None
        if not complete:
            yield stored.terminal_event(reading.answer.body, count).rstrip(b"\n")

    async def _delete(self, exchange: Exchange, caller: Caller, id: str) -> None:
        _, run = await self._find(caller, id)
        await self._store.delete(caller.project_id, RESPONSE, id)
        if run is not None:
            run.cancel()
        await self._respond(exchange, _ENCODE({"id": id, "object": "response", "deleted": True}))

    async def _cancel(self, exchange: Exchange, caller: Caller, id: str) -> None:
        record, run = await self._find(caller, id)
        if not stored.in_background(record.body):
            raise InvalidRequest("Only a response that was created with 'background' can be cancelled.", param="id")
        if run is not None:
            await run.cancelled()
        if not record.ended:
            record = await self._store.cancel(caller.project_id, RESPONSE, id)
        await self._respond(exchange, record.body)

    async def _input_items(self, exchange: Exchange, caller: Caller, id: str) -> None:
        given = query(exchange)
        order = given.get("order", "desc")
        if order not in stored.ORDERS:
            raise InvalidRequest("'order' must be asc or desc.", param="order")
        limit = whole_number(given.get("limit", "20"), "limit", least=1, most=100)
        record, _ = await self._find(caller, id)
        items = [bytes(raw) for raw in _ITEMS.decode(record.input)]
        page = stored.item_page(items, order=order, limit=limit, after=given.get("after"))
        await self._respond(exchange, page)

    async def _find(self, caller: Caller, id: str) -> tuple[AnswerRecord, Run | None]:
        """What control has of it, and the run where it runs here. NotFound also for another project's."""
        try:
            record = await self._store.get(caller.project_id, RESPONSE, _id(id))
        except NotFound:
            raise NotFound(f"Response with id '{id}' not found.", param="id") from None
        return record, None if record.ended else self._runs.find(caller.project_id, id)

    async def _respond(self, exchange: Exchange, body: bytes) -> None:
        await exchange.respond(200, body, headers=headers.of_answer(exchange))


def _id(text: str) -> str:
    """It becomes part of a path. NotFound for what cannot be an id."""
    if not text.isascii() or not text.replace("_", "").replace("-", "").isalnum() or len(text) > 128:
        raise NotFound(f"Response with id '{text}' not found.", param="id")
    return text


def _stored(record: AnswerRecord) -> stored.StoredResponse:
    return stored.StoredResponse(
        id=record.id,
        created_at=record.created_at,
        status=record.status,
        model=record.model,
        previous_response_id=record.previous_id,
        body=record.body,
        input_items=[bytes(raw) for raw in _ITEMS.decode(record.input)],
    )


async def _later(blocks: AsyncIterator[bytes], after: int) -> AsyncIterator[bytes]:
    """Those numbered after `after`."""
    async for block in blocks:
        if stored.sequence_number(block) > after:
            yield block
