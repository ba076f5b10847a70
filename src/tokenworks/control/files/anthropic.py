"""The same files in Anthropic's form, for callers who say its version: other names, moments as RFC 3339, own pages."""

import mimetypes
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from tokenworks.control.files import routes
from tokenworks.control.files.multipart import FormReader, boundary
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import files
from tokenworks.control.storage.files import File
from tokenworks.control.tenant import OBJECTS, TenantDep
from tokenworks.core.errors import InvalidRequest

MOST_LISTED = 1000
MOST_IDS = 100
PAGE = "page_"
"""What a cursor begins with; the rest is the id of the last file of the page before."""
_UNKNOWN = "application/octet-stream"

router = APIRouter(prefix=f"{OBJECTS}/v1/messages/files", include_in_schema=False)


@router.post("")
async def create(request: Request, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    form = FormReader(request.stream(), boundary(request.headers.get("content-type", "")))
    return view(await services.objects.uploads.receive(tenant.project_id, form, purpose="user_data"))


@router.get("")
async def list_all(
    services: ServicesDep,
    tenant: TenantDep,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 20,
    page: str | None = None,
    ids: Annotated[list[str] | None, Query(max_length=MOST_IDS)] = None,
    more_ids: Annotated[list[str] | None, Query(alias="ids[]", max_length=MOST_IDS)] = None,
) -> dict[str, Any]:
    now, wanted = services.now(), [*(ids or ()), *(more_ids or ())]
    async with services.database.read() as connection:
        if wanted:
            named = [await files.find(connection, tenant.project_id, name, now) for name in dict.fromkeys(wanted)]
            return _page([file for file in named if file is not None and not routes.is_internal(file)], MOST_IDS)
        cursor = None
        if page is not None:
            cursor = await files.find(connection, tenant.project_id, page.removeprefix(PAGE), now)
            if cursor is None:
                raise InvalidRequest(f"There is no page {page!r} to go on from.", param="page")
        found = await files.page(connection, tenant.project_id, now, limit + 1, purpose=None, after=cursor, newest=True)
    return _page(found, limit)


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    return view(await routes.find(services, tenant.project_id, id))


@router.get("/{id}/content")
async def content(id: str, services: ServicesDep, tenant: TenantDep) -> Response:
    file = await routes.find(services, tenant.project_id, id)
    return await routes.download(services.objects.store, file, _UNKNOWN)


@router.delete("/{id}")
async def delete(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    await routes.delete(id, services, tenant)
    return {"id": id, "type": "file_deleted"}


def view(file: File) -> dict[str, Any]:
    return {
        "type": "file",
        "id": file.id,
        "filename": file.filename,
        "mime_type": mimetypes.guess_type(file.filename)[0] or _UNKNOWN,
        "size_bytes": file.bytes,
        "created_at": _moment(file.created_ns / 1e9),
        "expires_at": None if file.expires_at is None else _moment(file.expires_at),
        "downloadable": True,
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _page(found: list[File], limit: int) -> dict[str, Any]:
    """At most `limit`; one more than that says that there is another page."""
    shown, more = found[:limit], len(found) > limit
    ends = {"first_id": shown[0].id if shown else None, "last_id": shown[-1].id if shown else None}
    next_page = f"{PAGE}{shown[-1].id}" if more else None
    return {"data": [view(file) for file in shown], **ends, "has_more": more, "next_page": next_page}
