"""`/v1/messages/batches` as gateways forward it. The requests come in one document, which is taken apart as it comes
and kept in the form of a file of `/v1/batches`; from there on both families are run alike."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from tokenworks.batches.records import LARGEST_LINE
from tokenworks.control.batches import rendering
from tokenworks.control.batches.routes import find, request_cancel
from tokenworks.control.batches.rules import (
    MESSAGE_BATCH,
    MESSAGES,
    MOST_BYTES,
    MOST_LINES,
    WINDOW_SECONDS,
    Checker,
)
from tokenworks.control.batches.splitting import Line, RequestsSplitter
from tokenworks.control.files.routes import download
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import batches, files
from tokenworks.control.storage.batches import Batch
from tokenworks.control.storage.files import ACTIVE, File
from tokenworks.control.tenant import OBJECTS, Tenant, TenantDep
from tokenworks.core.errors import InvalidRequest, NotFound, RequestTooLarge

MOST_LISTED = 1000

router = APIRouter(prefix=f"{OBJECTS}{MESSAGES}/batches", include_in_schema=False)


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    custom_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    params: msgspec.Raw


_REQUEST = msgspec.json.Decoder(_Request).decode
_ENCODE = msgspec.json.Encoder().encode


@router.post("")
async def create(request: Request, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    checker = Checker(MESSAGE_BATCH, MESSAGES, None)
    lines = _lines(request.stream(), checker)
    file = await services.objects.uploads.keep(tenant.project_id, "requests.jsonl", lines, MESSAGE_BATCH)
    batch_id = f"msgbatch_{secrets.token_hex(12)}"
    now_ns = services.clock.now_ns()
    kept = replace(file, filename=f"{batch_id}_input.jsonl", expires_at=now_ns // 10**9 + 2 * WINDOW_SECONDS)
    values = {
        "id": batch_id,
        "object": MESSAGE_BATCH,
        "project_id": tenant.project_id,
        "key_id": tenant.key_id,
        "endpoint": MESSAGES,
        "input_file_id": file.id,
        "status": "validating",
        "total": checker.count,
        "created_ns": now_ns,
        "expires_at": now_ns // 10**9 + WINDOW_SECONDS,
    }
    async with services.database.write() as connection:
        await files.finish(connection, kept)
        batch = await batches.create(connection, values)
    services.objects.lifecycle.wake()
    return rendering.message_batch(batch, tenant.origin, None)


@router.get("")
async def list_all(
    services: ServicesDep,
    tenant: TenantDep,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 20,
    after_id: str | None = None,
    before_id: str | None = None,
) -> dict[str, Any]:
    cursors: dict[str, Batch] = {}
    async with services.database.read() as connection:
        for name, given in (("after", after_id), ("before", before_id)):
            if given is not None:
                cursor = await batches.find(connection, tenant.project_id, MESSAGE_BATCH, given)
                if cursor is None:
                    raise InvalidRequest(f"There is no batch {given!r} to go on from.", param=f"{name}_id")
                cursors[name] = cursor
        found = await batches.page(connection, tenant.project_id, MESSAGE_BATCH, limit + 1, **cursors)
    page = found[-limit:] if "before" in cursors else found[:limit]
    data = [await _view(services, tenant, batch) for batch in page]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"data": data, "has_more": len(found) > limit, **ends}


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    return await _view(services, tenant, await find(services, tenant.project_id, MESSAGE_BATCH, id))


@router.post("/{id}/cancel")
async def cancel(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    """Of a batch that has ended it changes nothing."""
    batch = await find(services, tenant.project_id, MESSAGE_BATCH, id)
    return await _view(services, tenant, await request_cancel(services, batch))


@router.delete("/{id}")
async def delete(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    batch = await find(services, tenant.project_id, MESSAGE_BATCH, id)
    if batch.status in ACTIVE:
        raise InvalidRequest("The batch has not ended: cancel it first.", code="batch_not_ended")
    async with services.database.write() as connection:
        for file_id in (batch.input_file_id, batch.output_file_id):
            await files.hide(connection, file_id or "", services.now())
        await batches.remove(connection, batch.id)
    return {"id": batch.id, "type": "message_batch_deleted"}


@router.get("/{id}/results")
async def results(id: str, services: ServicesDep, tenant: TenantDep) -> Response:
    batch = await find(services, tenant.project_id, MESSAGE_BATCH, id)
    if batch.status in ACTIVE:
        raise NotFound("The batch has not ended, so it has no results yet.", code="results_not_ready")
    file = await _results(services, tenant, batch)
    if file is None:
        raise NotFound("The results of this batch are not kept any more.", code="results_archived")
    return await download(services.objects.store, file, "application/x-jsonl")


async def _view(services: Services, tenant: Tenant, batch: Batch) -> dict[str, Any]:
    archived_at = None
    if batch.output_file_id is not None and batch.status not in ACTIVE:
        file = await _results(services, tenant, batch)
        archived_at = batch.ended_at if file is None else None
    return rendering.message_batch(batch, tenant.origin, archived_at)


async def _results(services: Services, tenant: Tenant, batch: Batch) -> File | None:
    async with services.database.read() as connection:
        return await files.find(connection, tenant.project_id, batch.output_file_id or "", services.now())


async def _lines(chunks: AsyncIterator[bytes], checker: Checker) -> AsyncIterator[bytes]:
    """The requests as lines of an input file. InvalidRequest for the first that is wrong."""
    splitter, size = RequestsSplitter(LARGEST_LINE), 0
    async for chunk in chunks:
        size += len(chunk)
        if size > MOST_BYTES[MESSAGE_BATCH]:
            raise RequestTooLarge(f"A batch has at most {MOST_BYTES[MESSAGE_BATCH]} bytes.")
        for element in splitter.feed(chunk):
            yield _line(element, checker)
    splitter.close()
    if not checker.count:
        raise InvalidRequest("'requests' is empty.", param="requests")


def _line(element: bytes, checker: Checker) -> bytes:
    where = f"requests.{checker.count}"
    try:
        request = _REQUEST(element)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{where}: {error}.", param=where) from error
    # Outside of strings a line's end means nothing, and inside JSON allows none.
    params = bytes(request.params).replace(b"\n", b" ").replace(b"\r", b" ")
    text = b'{"custom_id":%s,"method":"POST","url":"%s","body":%s}' % (
        _ENCODE(request.custom_id),
        MESSAGES.encode(),
        params,
    )
    if checker.check(Line(checker.count + 1, 0, len(text), text)) is None:
        wrong = checker.errors[0]
        if checker.count > MOST_LINES[MESSAGE_BATCH]:
            raise RequestTooLarge(wrong["message"])
        param = wrong["param"] or ""
        field = f"params{param.removeprefix('body')}" if param.startswith("body") else param
        raise InvalidRequest(f"{where}.{field}: {wrong['message']}", param=f"{where}.{field}")
    return text + b"\n"
