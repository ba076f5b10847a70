"""`/admin/v1/models`: what callers can ask for, and who would answer it now."""

from collections.abc import Mapping

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenworks.control.access import ReadTenants
from tokenworks.control.offers import answers
from tokenworks.control.services import Services, ServicesDep
from tokenworks.core.money import nano_to_usd
from tokenworks.core.price import STATED, Price
from tokenworks.snapshot.records import ModelRecord, TargetRecord, UpstreamRecord

router = APIRouter(prefix="/admin/v1/models", tags=["models"])


class Target(BaseModel):
    upstream: str
    model: str = Field(description="The name the upstream knows the model by.")
    provider: str
    local: bool
    state: str
    reason: str


class Replica(BaseModel):
    """A worker of ours."""

    id: str
    engine: str
    state: str
    reason: str
    silent_seconds: float = Field(description="Since its last heartbeat.")


class Model(BaseModel):
    object: str = "model"
    id: str
    created: int
    default: bool
    engine: str | None = Field(description="What serves it on a worker of ours; null when only others do.")
    context_length: int | None
    max_output: int | None
    capabilities: list[str]
    limits: dict[str, float] = Field(description="Seconds.")
    price_usd: dict[str, str] = Field(
        description="In force now: USD per million tokens, per request, image or second; exact decimal text."
    )
    targets: list[Target] = Field(description="In order of preference.")
    replicas: list[Replica]


class ModelList(BaseModel):
    object: str = "list"
    data: list[Model]


@router.get("")
async def list_all(services: ServicesDep, _: ReadTenants) -> ModelList:
    state = services.publisher.state
    return ModelList(data=[_model(record, state.upstreams, services) for record in state.models.values()])


def _model(record: ModelRecord, upstreams: Mapping[str, UpstreamRecord], services: Services) -> Model:
    offer = services.offers.get(record.name)
    replicas = [
        Replica(
            id=replica.id,
            engine=replica.provider.removeprefix("local/"),
            state=replica.state,
            reason=replica.reason,
            silent_seconds=round(services.fleet.silence(replica.id), 1),
        )
        for replica in services.fleet.replicas
        if replica.model == record.name or (offer is not None and answers(offer, replica.model))
    ]
    engine = offer.engine if offer else None
    return Model(
        id=record.name,
        created=record.created,
        default=record.default,
        engine=engine or (replicas[0].engine if replicas else None),
        context_length=record.context_length,
        max_output=record.max_output,
        capabilities=list(record.capabilities),
        limits=msgspec.structs.asdict(record.limits),
        price_usd=_stated(record.tariff("", "").at(services.now())),
        targets=[_target(target, upstreams[target.upstream]) for target in record.targets],
        replicas=replicas,
    )


def _stated(price: Price | None) -> dict[str, str]:
    rates = price.rates if price is not None else {}
    return {name: nano_to_usd(rates[kind] // unit) for name, (kind, unit) in STATED.items() if kind in rates}


def _target(target: TargetRecord, upstream: UpstreamRecord) -> Target:
    return Target(
        upstream=target.upstream,
        model=target.model,
        provider=upstream.provider,
        local=upstream.local,
        state=upstream.state,
        reason=upstream.reason,
    )
