"""`/v1/files` as gateways forward it. A key sees the files of its project; all others do not exist."""

import hashlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from tokenworks.control.files.multipart import FormReader, boundary
from tokenworks.control.objects.store import ObjectDamaged, ObjectStore
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import files
from tokenworks.control.storage.files import INTERNAL_PURPOSES, File
from tokenworks.control.tenant import OBJECTS, TenantDep
from tokenworks.core.errors import InvalidRequest, NotFound

MOST_LISTED = 10_000

router = APIRouter(prefix=f"{OBJECTS}/v1/files", include_in_schema=False)


@router.post("")
async def create(request: Request, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    form = FormReader(request.stream(), boundary(request.headers.get("content-type", "")))
    return view(await services.objects.uploads.receive(tenant.project_id, form))


@router.get("")
async def list_all(
    services: ServicesDep,
    tenant: TenantDep,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = MOST_LISTED,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> dict[str, Any]:
    now = services.now()
    async with services.database.read() as connection:
        cursor = await files.find(connection, tenant.project_id, after, now) if after is not None else None
        if after is not None and cursor is None:
            raise InvalidRequest(f"There is no file {after!r} to go on from.", param="after")
        found = await files.page(
            connection, tenant.project_id, now, limit + 1, purpose=purpose, after=cursor, newest=order == "desc"
        )
    return listing([view(file) for file in found], limit)


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    return view(await find(services, tenant.project_id, id))


@router.get("/{id}/content")
async def content(id: str, services: ServicesDep, tenant: TenantDep) -> Response:
    file = await find(services, tenant.project_id, id)
    return await download(services.objects.store, file, "application/octet-stream")


@router.delete("/{id}")
async def delete(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    file = await find(services, tenant.project_id, id)
    async with services.database.write() as connection:
        if user := await files.is_used(connection, id):
            raise InvalidRequest(f"The batch {user} still reads this file: cancel it first.", code="file_in_use")
        await files.hide(connection, file.id, services.now())
    return {"id": file.id, "object": "file", "deleted": True}


def view(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_ns // 1_000_000_000,
        "expires_at": file.expires_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def listing(data: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page of at most `limit`; one more than that says that there is another."""
    page = data[:limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, **ends, "has_more": len(data) > limit}


async def download(store: ObjectStore, file: File, media_type: str) -> Response:
    chunks = _verified(store, file)
    first = await anext(chunks, b"")  # so that a missing object is an error answer and not a cut one
    headers = {
        "content-length": str(file.bytes),
        "content-disposition": f"attachment; filename*=utf-8''{quote(file.filename, safe='')}",
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(_after(first, chunks), media_type=media_type, headers=headers)


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def _verified(store: ObjectStore, file: File) -> AsyncIterator[bytes]:
    """The last piece leaves only when all of them are what was stored: a damaged file never looks complete."""
    digest, held = hashlib.sha256(), b""
    async for chunk in store.get(file.key):
        digest.update(chunk)
        if held:
            yield held
        held = chunk
    if digest.hexdigest() != file.sha256:
        raise ObjectDamaged(f"{file.key} is not what was stored")
    yield held


async def find(services: Services, project_id: str, id: str) -> File:
    async with services.database.read() as connection:
        file = await files.find(connection, project_id, id, services.now())
    if file is None or is_internal(file):
        raise NotFound(f"There is no file {id!r}.", param="id", code="file_not_found")
    return file


def is_internal(file: File) -> bool:
    return file.purpose in INTERNAL_PURPOSES
