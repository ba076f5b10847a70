"""`/internal/v1/answers`: what gateways save and ask. Every call names the project, and sees nothing of another's."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response

from tokenworks.answers.records import LARGEST_CHAIN, PATH, AnswerRecord, EventsRecord, Page, Revision, Save
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import answers
from tokenworks.core.errors import InvalidRequest, NotFound

MSGPACK = "application/msgpack"
router = APIRouter(prefix=PATH, include_in_schema=False)

Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
Project = Annotated[str, Query(max_length=128)]
Kind = Annotated[str, Query(max_length=32)]

_SAVE = msgspec.msgpack.Decoder(Save)
_REVISION = msgspec.msgpack.Decoder(Revision)


@router.post("/{id}")
async def save(id: Id, request: Request, services: ServicesDep) -> Response:
    try:
        given = _SAVE.decode(await request.body())
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"The body is not a save of an answer: {error}") from None
    if given.webhook is not None:
        services.webhooks.check(given.webhook.url)
    return _packed(await services.answers.save(id, given))


@router.get("/{id}")
async def get(id: Id, project: Project, kind: Kind, services: ServicesDep) -> Response:
    async with services.database.read() as connection:
        return _packed(_there(await answers.find(connection, project, kind, id, services.now()), id))


@router.get("/{id}/events")
async def events(id: Id, project: Project, kind: Kind, services: ServicesDep, first: int = 0) -> Response:
    """Those from number `first` on, and perhaps some before it."""
    async with services.database.read() as connection:
        record = _there(await answers.find(connection, project, kind, id, services.now()), id)
        return _packed(EventsRecord(record, await answers.events_from(connection, id, first)))


@router.get("/{id}/chain")
async def chain(id: Id, project: Project, kind: Kind, services: ServicesDep) -> Response:
    """The answer and all before it, oldest first. 404 when one of them is gone: without it the rest means another."""
    async with services.database.read() as connection:
        found = await answers.chain(connection, project, kind, id, services.now())
    if not found:
        raise _not_there(id)
    if found[0].previous_id is not None:
        raise _not_there(found[0].previous_id)
    if sum(len(record.body) + len(record.input) for record in found) > LARGEST_CHAIN:
        raise InvalidRequest(f"The conversation is longer than {LARGEST_CHAIN} bytes.", code="conversation_too_long")
    return _packed(found)


@router.post("/{id}/cancel")
async def cancel(id: Id, project: Project, kind: Kind, services: ServicesDep) -> Response:
    return _packed(_there(await services.answers.cancel(project, kind, id), id))


@router.post("/{id}/body", status_code=204)
async def revise(id: Id, request: Request, services: ServicesDep) -> None:
    try:
        given = _REVISION.decode(await request.body())
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"The body is not a revision of an answer: {error}") from None
    async with services.database.write() as connection:
        if not await answers.revise(connection, given.project_id, given.kind, id, given.body):
            raise _not_there(id)


@router.delete("/{id}", status_code=204)
async def remove(id: Id, project: Project, kind: Kind, services: ServicesDep) -> None:
    async with services.database.write() as connection:
        if not await answers.remove(connection, project, kind, id):
            raise _not_there(id)


@router.get("")
async def page(
    project: Project,
    kind: Kind,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=128)] = None,
    oldest_first: bool = False,
) -> Response:
    async with services.database.read() as connection:
        found = await answers.page(
            connection, project, kind, services.now(), limit + 1, after, oldest_first=oldest_first
        )
    return _packed(Page(found[:limit], len(found) > limit))


def _there(record: AnswerRecord | None, id: str) -> AnswerRecord:
    if record is None:
        raise _not_there(id)
    return record


def _not_there(id: str) -> NotFound:
    return NotFound(f"{id} is not there, or not any more.", code="answer_not_found")


def _packed(record: Any) -> Response:
    return Response(msgspec.msgpack.encode(record), media_type=MSGPACK)
