"""The internal API, for gateways, workers and the supervisor: snapshot, keys, journal, replicas, health."""

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from tokenworks import __version__
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import api_keys
from tokenworks.control.storage.fleet import Replica
from tokenworks.core.errors import InvalidRequest, NotFound

MSGPACK = "application/msgpack"

router = APIRouter(prefix="/internal/v1", include_in_schema=False)

Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class Heartbeat(BaseModel):
    """What a worker says about itself. Fields that a newer worker adds are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)

    model: Name
    provider: Name
    protocols: list[Name] = Field(min_length=1)
    base_url: Name
    state: Literal["starting", "ready", "restarting", "draining", "failed"]
    reason: str = Field("", max_length=2000)
    quirks: list[Name] = []
    context_length: int | None = Field(None, ge=1, lt=2**31)
    max_output: int | None = Field(None, ge=1, lt=2**31)
    capabilities: list[Name] = []
    region: str = Field("", max_length=100, pattern=r"^[!-~]*$")
    jurisdiction: str = Field("", max_length=100, pattern=r"^[!-~]*$")
    retention: int | None = Field(None, ge=0, lt=2**53)
    trains: bool | None = None

    def replica(self, id: str) -> Replica:
        return Replica(
            id=id,
            model=self.model,
            provider=self.provider,
            protocols=tuple(self.protocols),
            base_url=self.base_url,
            state=self.state,
            reason=self.reason,
            quirks=tuple(self.quirks),
            context_length=self.context_length,
            max_output=self.max_output,
            capabilities=tuple(self.capabilities),
            region=self.region,
            jurisdiction=self.jurisdiction,
            retention=self.retention,
            trains=self.trains,
        )


@router.get("/health")
async def health(services: ServicesDep) -> dict[str, object]:
    """200 when the database answers."""
    async with services.database.read() as connection:
        await connection.exec_driver_sql("SELECT 1")
    return {"status": "ok", "version": __version__, "gateways": services.publisher.subscribers}


@router.get("/snapshot")
async def snapshot(services: ServicesDep) -> Response:
    return StreamingResponse(services.publisher.subscribe(), media_type=MSGPACK)


@router.get("/keys/{digest}")
async def key(digest: str, services: ServicesDep) -> Response:
    async with services.database.read() as connection:
        found = await api_keys.find_active(connection, digest, services.now())
    if found is None:
        raise NotFound("There is no valid key with this digest.", code="key_not_found")
    return Response(msgspec.msgpack.encode(found.record()), media_type=MSGPACK)


@router.post("/journal/{gateway_id}")
async def journal(
    gateway_id: Id,
    request: Request,
    services: ServicesDep,
    first: Annotated[int, Query(ge=0, lt=2**62)],
    oldest: bool = False,
) -> dict[str, int]:
    return {"acknowledged": await services.ingest.take(gateway_id, first, oldest, await request.body())}


@router.put("/replicas/{id}", status_code=204)
async def heartbeat(id: Id, beat: Heartbeat, services: ServicesDep) -> None:
    if id in services.announcer.endpoints:
        raise InvalidRequest(f"{id!r} is the name of a configured provider; a replica needs another id.", param="id")
    await services.fleet.heartbeat(beat.replica(id))


@router.delete("/replicas/{id}", status_code=204)
async def leave(id: Id, services: ServicesDep) -> None:
    await services.fleet.leave(id)
