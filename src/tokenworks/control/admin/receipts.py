"""`/v1/receipts`: what a request took and cost, signed; and the keys to check it with.

An API key reads its project's (through the gateway, which has checked it), an admin key its organization's.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from tokenworks.control.access import ReadUsage
from tokenworks.control.ledger.receipts import Reader, receipt
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.tenant import OBJECTS, TenantDep
from tokenworks.core.errors import NotFound

router = APIRouter(prefix="/v1/receipts", tags=["receipts"])
public = APIRouter(prefix="/v1/receipts", tags=["receipts"])
internal = APIRouter(prefix=f"{OBJECTS}/v1/receipts", include_in_schema=False)

RequestId = Annotated[str, Path(max_length=200)]


@public.get("/keys")
async def keys(services: ServicesDep) -> dict[str, Any]:
    """Every public key that ever signed, as a JSON Web Key Set."""
    return services.signer.keys


@router.get("/{request_id}")
async def retrieve(request_id: RequestId, services: ServicesDep, actor: ReadUsage) -> dict[str, Any]:
    reader = Reader(None if actor.is_operator else actor.organization_id, sees_costs=actor.is_operator)
    return await _receipt(services, request_id, reader)


@internal.get("/{request_id}")
async def retrieve_own(request_id: RequestId, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    return await _receipt(services, request_id, Reader(project_id=tenant.project_id))


async def _receipt(services: Services, request_id: str, reader: Reader) -> dict[str, Any]:
    async with services.database.read() as connection:
        found = await connection.run_sync(receipt, request_id, reader, services.now())
    if found is None:
        raise NotFound(
            f"There is no request {request_id!r}. A receipt is there about a second after the answer.",
            param="request_id",
            code="receipt_not_found",
        )
    return services.signer.sign(found)
