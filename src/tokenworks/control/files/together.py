"""The same files in the form of Together's API: said first, then put at a signed URL, then asked about."""

import re
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from tokenworks.control.files import routes, signed
from tokenworks.control.files.multipart import FormReader, boundary
from tokenworks.control.files.uploads import BATCH_SECONDS, clean_name, new_file_id
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import files
from tokenworks.control.storage.files import File
from tokenworks.control.tenant import OBJECTS, TenantDep
from tokenworks.core.errors import InvalidRequest, NotFound

PURPOSES = {"batch-api": "batch", "fine-tune": "fine-tune", "eval": "evals"}
"""Their word -> ours."""
_THEIRS = {ours: theirs for theirs, ours in PURPOSES.items()}
_SHA256 = re.compile(r"[0-9a-f]{64}")

router = APIRouter(prefix=f"{OBJECTS}/v1/together/files", include_in_schema=False)


@router.post("", status_code=302)
async def create(request: Request, services: ServicesDep, tenant: TenantDep) -> Response:
    form = FormReader(request.stream(), boundary(request.headers.get("content-type", "")))
    fields: dict[str, str] = {}
    while (part := await form.part()) is not None:
        fields[part.name] = await form.text()
    checksum, purpose = fields.get("checksum", ""), fields.get("purpose", "")
    if purpose not in PURPOSES:
        raise InvalidRequest(f"'purpose' must be one of {', '.join(PURPOSES)}.", param="purpose")
    if not _SHA256.fullmatch(checksum):
        raise InvalidRequest("'checksum' must be the SHA-256 of the file, in hexadecimal digits.", param="checksum")
    now_ns = services.clock.now_ns()
    expires_at = services.now() + BATCH_SECONDS if purpose == "batch-api" else None
    name = clean_name(fields.get("file_name"))
    file = File(new_file_id(), tenant.project_id, PURPOSES[purpose], name, now_ns, expires_at)
    async with services.database.write() as connection:
        await files.begin(connection, file)
    location = signed.url(services, tenant.origin, "PUT", file, checksum=checksum)
    return Response(status_code=302, headers={"location": location, "x-together-file-id": file.id})


@router.post("/content")
async def put(
    request: Request, services: ServicesDep, tenant: TenantDep, id: Annotated[str, Query()], checksum: str = ""
) -> dict[str, Any]:
    """The bytes of a file that was said before; whoever has its signed URL may send them, once."""
    async with services.database.read() as connection:
        file = await files.find_any(connection, id)
    if file is None or file.project_id != tenant.project_id:
        raise NotFound(f"There is no file {id!r}.", param="id", code="file_not_found")
    if file.bytes is not None:
        raise InvalidRequest("The file has its content already.", code="file_exists")
    stored = await services.objects.store.put(file.key, request.stream())
    if stored.sha256 != checksum:
        async with services.database.write() as connection:
            await files.hide(connection, id, services.now())
        raise InvalidRequest("The content is not what 'checksum' says; upload it again.", param="checksum")
    async with services.database.write() as connection:
        await files.finish(connection, replace(file, bytes=stored.size, sha256=stored.sha256))
    return {"id": id}


@router.get("")
async def list_all(services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    async with services.database.read() as connection:
        found = await files.page(
            connection, tenant.project_id, services.now(), routes.MOST_LISTED, purpose=None, after=None, newest=True
        )
    return {"object": "list", "data": [_view(file) for file in found]}


@router.get("/{id}")
@router.post("/{id}/preprocess")
async def retrieve(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    """There is nothing to prepare."""
    return _view(await routes.find(services, tenant.project_id, id))


@router.get("/{id}/content")
async def content(id: str, services: ServicesDep, tenant: TenantDep) -> Response:
    return await routes.content(id, services, tenant)


@router.delete("/{id}")
async def delete(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    await routes.delete(id, services, tenant)
    return {"id": id, "deleted": True}


def _view(file: File) -> dict[str, Any]:
    kind = file.filename.rpartition(".")[2]
    return routes.view(file) | {
        "purpose": _THEIRS.get(file.purpose, file.purpose),
        "FileType": kind if kind in ("csv", "parquet") else "jsonl",
        "processing_status": "COMPLETED",
    }
