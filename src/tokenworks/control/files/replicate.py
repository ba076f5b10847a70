"""The same files in the form of Replicate's API. They are inputs of predictions, so they go after a day, and `urls.get`
is one that whoever runs the model can fetch without a key."""

import mimetypes
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request

from tokenworks.control.files import routes, signed
from tokenworks.control.files.multipart import FormReader, boundary
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import files
from tokenworks.control.storage.files import File
from tokenworks.control.tenant import OBJECTS, TenantDep

KEPT_SECONDS = 24 * 3600

router = APIRouter(prefix=f"{OBJECTS}/v1/predictions/files", include_in_schema=False)


@router.post("", status_code=201)
async def create(request: Request, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    form = FormReader(request.stream(), boundary(request.headers.get("content-type", "")))
    given = {"purpose": "user_data", "expires_in_seconds": str(KEPT_SECONDS)}
    file = await services.objects.uploads.receive(tenant.project_id, form, part_name="content", **given)
    return _view(services, file, tenant.origin)


@router.get("")
async def list_all(services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    """All in one page, the newest first."""
    async with services.database.read() as connection:
        found = await files.page(
            connection, tenant.project_id, services.now(), routes.MOST_LISTED, purpose=None, after=None, newest=True
        )
    return {"previous": None, "next": None, "results": [_view(services, file, tenant.origin) for file in found]}


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    return _view(services, await routes.find(services, tenant.project_id, id), tenant.origin)


@router.delete("/{id}", status_code=204)
async def delete(id: str, services: ServicesDep, tenant: TenantDep) -> None:
    await routes.delete(id, services, tenant)


def _view(services: Services, file: File, origin: str) -> dict[str, Any]:
    return {
        "id": file.id,
        "name": file.filename,
        "content_type": mimetypes.guess_type(file.filename)[0] or "application/octet-stream",
        "size": file.bytes,
        "etag": file.sha256,
        "checksums": {"sha256": file.sha256},
        "metadata": {},
        "created_at": _moment(file.created_ns / 1e9),
        "expires_at": None if file.expires_at is None else _moment(file.expires_at),
        "urls": {"get": signed.url(services, origin, "GET", file, until=file.expires_at)},
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
