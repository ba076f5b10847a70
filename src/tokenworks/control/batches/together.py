"""The same batches in the form of Together's API."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from tokenworks.control.batches import routes
from tokenworks.control.batches.routes import NewBatch
from tokenworks.control.batches.rules import BATCH, WINDOW
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import batches
from tokenworks.control.storage.batches import Batch
from tokenworks.control.tenant import OBJECTS, TenantDep
from tokenworks.core.errors import InvalidRequest

MOST_LISTED = 1000
_STATUSES = {"validating": "VALIDATING", "completed": "COMPLETED", "failed": "FAILED"} | {
    "expired": "EXPIRED",
    "cancelled": "CANCELLED",
}
"""Whatever else it is, it is in progress."""

router = APIRouter(prefix=f"{OBJECTS}/v1/together/batches", include_in_schema=False)


class NewJob(NewBatch):
    completion_window: str = Field(WINDOW, pattern=f"^{WINDOW}$")
    model_id: str | None = None
    priority: int | None = None


@router.post("", status_code=201)
async def create(body: NewJob, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    if body.model_id is not None:
        raise InvalidRequest("'model_id' has no effect: each line's body names its model.", param="model_id")
    if body.priority:
        raise InvalidRequest("'priority' has no effect: batches take turns.", param="priority")
    return {"job": _view(await routes.make(body, services, tenant)), "warning": None}


@router.get("")
async def list_all(services: ServicesDep, tenant: TenantDep) -> list[dict[str, Any]]:
    async with services.database.read() as connection:
        found = await batches.page(connection, tenant.project_id, BATCH, MOST_LISTED)
    return [_view(batch) for batch in found]


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    return _view(await routes.find(services, tenant.project_id, BATCH, id))


@router.post("/{id}/cancel")
async def cancel(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    return _view(await routes.stop(id, services, tenant))


def _view(row: Batch) -> dict[str, Any]:
    done = row.status in ("completed", "expired", "cancelled")
    errors = row.errors or []
    progress = 100.0 if row.status == "completed" else 100.0 * (row.completed + row.failed) / max(row.total or 0, 1)
    return {
        "id": row.id,
        "status": _STATUSES.get(row.status, "IN_PROGRESS"),
        "endpoint": row.endpoint,
        "model_id": row.model,
        "input_file_id": row.input_file_id,
        "output_file_id": row.output_file_id if done else None,
        "error_file_id": row.error_file_id if done else None,
        "error": "; ".join(error["message"] for error in errors) or None,
        "progress": progress,
        "created_at": _moment(row.created_ns // 1_000_000_000),
        "completed_at": _moment(row.ended_at),
        "job_deadline": _moment(row.expires_at),
        "user_id": row.project_id,
    }


def _moment(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
