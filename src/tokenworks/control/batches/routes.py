"""`/v1/batches` as gateways forward it, and the lease call of the gateways themselves."""

import secrets
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from tokenworks.batches.records import LEASE_PATH, LeaseCall
from tokenworks.control.batches import rendering
from tokenworks.control.batches.rules import BATCH, ENDPOINTS, WINDOW, WINDOW_SECONDS
from tokenworks.control.files.routes import listing
from tokenworks.control.files.uploads import EXPIRY_SECONDS
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import batches, files
from tokenworks.control.storage.batches import Batch
from tokenworks.control.tenant import OBJECTS, Tenant, TenantDep
from tokenworks.core.errors import InvalidRequest, NotFound

MOST_LISTED = 100

router = APIRouter(prefix=f"{OBJECTS}/v1/batches", include_in_schema=False)
leases = APIRouter(include_in_schema=False)
_CALL = msgspec.msgpack.Decoder(LeaseCall)


class OutputExpiry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    anchor: Literal["created_at"]
    seconds: int = Field(ge=EXPIRY_SECONDS[0], le=EXPIRY_SECONDS[1])


class NewBatch(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    input_file_id: str = Field(max_length=200)
    endpoint: Literal[ENDPOINTS]  # type: ignore[valid-type]
    completion_window: Literal[WINDOW]  # type: ignore[valid-type]
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = Field(
        None, max_length=16
    )
    output_expires_after: OutputExpiry | None = None


@leases.post(LEASE_PATH)
async def lease(request: Request, services: ServicesDep) -> Response:
    try:
        call = _CALL.decode(await request.body())
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"This is no lease call: {error}.") from error
    answer = await services.objects.leasing.take(call)
    return Response(msgspec.msgpack.encode(answer), media_type="application/msgpack")


@router.post("")
async def create(body: NewBatch, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    return rendering.batch(await make(body, services, tenant))


async def make(body: NewBatch, services: Services, tenant: Tenant) -> Batch:
    now = services.now()
    async with services.database.write() as connection:
        file = await files.find(connection, tenant.project_id, body.input_file_id, now)
        if file is None or file.purpose != "batch":
            message = f"There is no file {body.input_file_id!r} with the purpose 'batch'."
            raise InvalidRequest(message, param="input_file_id", code="invalid_input_file")
        values = {
            "id": f"batch_{secrets.token_hex(12)}",
            "object": BATCH,
            "project_id": tenant.project_id,
            "key_id": tenant.key_id,
            "endpoint": body.endpoint,
            "input_file_id": file.id,
            "metadata": body.metadata,
            "output_seconds": body.output_expires_after.seconds if body.output_expires_after else None,
            "status": "validating",
            "created_ns": services.clock.now_ns(),
            "expires_at": now + WINDOW_SECONDS,
        }
        batch = await batches.create(connection, values)
    services.objects.lifecycle.wake()
    return batch


@router.get("")
async def list_all(
    services: ServicesDep,
    tenant: TenantDep,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 20,
    after: str | None = None,
) -> dict[str, Any]:
    async with services.database.read() as connection:
        cursor = await batches.find(connection, tenant.project_id, BATCH, after) if after is not None else None
        if after is not None and cursor is None:
            raise InvalidRequest(f"There is no batch {after!r} to go on from.", param="after")
        found = await batches.page(connection, tenant.project_id, BATCH, limit + 1, after=cursor)
    return listing([rendering.batch(batch) for batch in found], limit)


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    return rendering.batch(await find(services, tenant.project_id, BATCH, id))


@router.post("/{id}/cancel")
async def cancel(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    return rendering.batch(await stop(id, services, tenant))


async def stop(id: str, services: Services, tenant: Tenant) -> Batch:
    batch = await request_cancel(services, await find(services, tenant.project_id, BATCH, id))
    if batch.status not in ("cancelling", "cancelled"):
        message = f"The batch cannot be cancelled: it is {batch.status}."
        raise InvalidRequest(message, code="batch_not_cancellable")
    return batch


async def find(services: Services, project_id: str, object: str, id: str) -> Batch:
    async with services.database.read() as connection:
        batch = await batches.find(connection, project_id, object, id)
    if batch is None:
        raise NotFound(f"There is no batch {id!r}.", param="id", code="batch_not_found")
    return batch


async def request_cancel(services: Services, batch: Batch) -> Batch:
    """No line is leased any more; what runs now may end. The batch as it is then, whatever it was."""
    values = {"status": "cancelling", "outcome": "cancelled", "cancelling_at": services.now()}
    async with services.database.write() as connection:
        await batches.step(connection, batch.id, ("validating", "in_progress"), **values)
        now = await batches.get(connection, batch.id)
    services.objects.lifecycle.wake()
    return now or batch
