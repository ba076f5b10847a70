"""Chat completions that their callers want stored: kept as they leave, listed, read again, changed and removed."""

import re
from urllib.parse import unquote

import msgspec
import structlog

from tokenworks.answers.records import COMPLETION, AnswerRecord, Revision, Save
from tokenworks.core.caller import Caller
from tokenworks.core.errors import InvalidRequest, MethodNotAllowed, NotFound, TokenworksError
from tokenworks.core.request import Request
from tokenworks.gateway.answers.intake import Intake
from tokenworks.gateway.answers.keeping import Keeper
from tokenworks.gateway.answers.reading import query, whole_number
from tokenworks.gateway.answers.store import AnswerStore
from tokenworks.gateway.edge import headers
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.protocols.openai_chat import stored
from tokenworks.protocols.openai_chat.codec import CODEC

PATH = "/v1/chat/completions"
PREFIX = f"{PATH}/"
UNSTORED = " Leave 'store' out."
ORDERS = ("asc", "desc")
NOT_STORED = b": this completion could not be stored\n\n"
PAGE = 100
MOST_LOOKED_AT = 10_000
"""Of one list that is narrowed by model or metadata."""
UPDATE_BYTES = 64 * 1024
UPDATE_SECONDS = 30.0

_METADATA = re.compile(r"metadata\[(.*)\]")

log = structlog.get_logger("tokenworks.gateway")


class KeepingCompletion(Keeper):
    """A chat completion is stored before its last bytes leave."""

    async def last(self, data: bytes) -> bytes:
        if self._asked.stream:
            whole = stored.folded(self._asked, b"".join([*self._seen, data]))
            return data if whole is None or await self._kept(whole) else NOT_STORED + data
        if not data:  # it failed, after padding had left
            return data
        return data if await self._kept(data) else stored.unstored(data)

    async def _kept(self, whole: bytes) -> bool:
        try:
            body = stored.kept(self._asked, whole)
            name, created, model, _ = stored.about(body)
            save = Save(
                kind=COMPLETION,
                project_id=self._project_id,
                model=model,
                status="completed",
                created_at=created,
                body=body,
                create=True,
                ended=True,
                input=stored.asked_messages(self._asked),
            )
            await self._store.save(_id(name), save)
        except (TokenworksError, msgspec.MsgspecError) as error:
            log.warning("a completion is not stored", reason=str(error))
            return False
        return True


class Completions:
    def __init__(self, intake: Intake, store: AnswerStore) -> None:
        self._intake = intake
        self._store = store

    def keep(self, caller: Caller, request: Request) -> KeepingCompletion:
        self._intake.require_storable(caller, UNSTORED)
        stored.require_metadata(request.metadata)
        return KeepingCompletion(self._store, caller.project_id, request)

    async def list(self, exchange: Exchange) -> None:
        """Oldest first unless `order` says otherwise; of one `model`, or with the given `metadata[name]`, only."""
        exchange.codec = CODEC
        caller = await self._intake.identify(exchange)
        given = query(exchange)
        limit = whole_number(given.get("limit", "20"), "limit", least=1, most=100)
        oldest_first = _order(given) == "asc"
        wanted = {found[1]: value for name, value in given.items() if (found := _METADATA.fullmatch(name))}
        fitting: list[bytes] = []
        after, looked_at, more = given.get("after"), 0, True
        while more and len(fitting) <= limit:
            page = await self._store.page(
                caller.project_id, COMPLETION, limit=PAGE, after=after, oldest_first=oldest_first
            )
            fitting += [each.body for each in page.answers if _fits(each, given.get("model"), wanted)]
            more, looked_at = page.more, looked_at + len(page.answers)
            after = page.answers[-1].id if page.answers else after
            if looked_at >= MOST_LOOKED_AT and len(fitting) <= limit:
                message = f"Among {MOST_LOOKED_AT} completions there are no more of these: go on with 'after'."
                raise InvalidRequest(message, param="metadata")
        await self._respond(exchange, stored.page(fitting[:limit], more=len(fitting) > limit))

    async def below(self, exchange: Exchange) -> None:
        """GET, POST, DELETE /{id}; GET /{id}/messages."""
        exchange.codec = CODEC
        caller = await self._intake.identify(exchange)
        name, _, verb = unquote(exchange.path.removeprefix(PREFIX)).partition("/")
        if verb not in ("", "messages"):
            raise NotFound(f"There is nothing at {exchange.path}.", code="unknown_path")
        record = await self._find(caller, name)
        match exchange.method, verb:
            case "GET", "":
                await self._respond(exchange, record.body)
            case "GET", "messages":
                given = query(exchange)
                limit = whole_number(given.get("limit", "20"), "limit", least=1, most=100)
                page = stored.message_page(
                    record.input, record.id, order=_order(given), limit=limit, after=given.get("after")
                )
                await self._respond(exchange, page)
            case "POST", "":
                metadata = stored.decode_update(await exchange.read_body(UPDATE_BYTES, UPDATE_SECONDS))
                body = stored.updated(record.body, metadata)
                await self._store.revise(record.id, Revision(COMPLETION, caller.project_id, body))
                await self._respond(exchange, body)
            case "DELETE", "":
                await self._store.delete(caller.project_id, COMPLETION, record.id)
                await self._respond(exchange, stored.deleted(record.id))
            case _:
                raise MethodNotAllowed(f"{exchange.method} is not possible on {exchange.path}.")

    async def _find(self, caller: Caller, name: str) -> AnswerRecord:
        try:
            return await self._store.get(caller.project_id, COMPLETION, _id(name))
        except NotFound:
            raise NotFound(f"Chat completion with id '{name}' not found.", param="id") from None

    async def _respond(self, exchange: Exchange, body: bytes) -> None:
        await exchange.respond(200, body, headers=headers.of_answer(exchange))


def _order(given: dict[str, str]) -> str:
    order = given.get("order", "asc")
    if order not in ORDERS:
        raise InvalidRequest("'order' must be asc or desc.", param="order")
    return order


def _fits(record: AnswerRecord, model: str | None, wanted: dict[str, str]) -> bool:
    if model is not None and record.model != model:
        return False
    return not wanted or wanted.items() <= dict(stored.about(record.body)[3]).items()


def _id(text: str) -> str:
    """It becomes part of a path. NotFound for what cannot be an id."""
    if not text.isascii() or not text.replace("_", "").replace("-", "").isalnum() or len(text) > 128:
        raise NotFound(f"Chat completion with id '{text}' not found.", param="id")
    return text
