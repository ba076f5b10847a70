"""`/admin/v1/webhooks`: where events of an organization are sent, signed as Standard Webhooks has it."""

from typing import Annotated, Literal, get_args

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from tokenworks.control.access import Actor, ReadTenants, WriteWebhooks
from tokenworks.control.admin.organization.shapes import After, Listing, Wish, listing, missing
from tokenworks.control.changes import changing
from tokenworks.control.events import TEST, test_event
from tokenworks.control.keys import new_id
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import deliveries, endpoints
from tokenworks.control.storage.endpoints import Endpoint
from tokenworks.core.errors import InvalidRequest

router = APIRouter(prefix="/admin/v1/webhooks", tags=["webhooks"])

Event = Literal[
    "budget.threshold_reached",
    "webhook.test",
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "response.completed",
    "response.failed",
    "response.cancelled",
    "response.incomplete",
]
EVERY: list[Event] = list(get_args(Event))


class NewEndpoint(Wish):
    url: str = Field(min_length=1, max_length=2000, description="http:// or https://, of the public internet.")
    events: list[Event] = Field(EVERY, min_length=1, description="What it wants to hear of.")
    description: str = Field("", max_length=500)


class EndpointShown(BaseModel):
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    id: str
    url: str
    events: list[str]
    description: str
    created_at: int


class EndpointMade(EndpointShown):
    secret: str = Field(description="Verifies the signatures. It is shown only now.")


class EndpointDeleted(BaseModel):
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    id: str
    deleted: bool = True


@router.post("", status_code=201)
async def create(body: NewEndpoint, services: ServicesDep, actor: WriteWebhooks) -> EndpointMade:
    try:
        services.webhooks.check(body.url)
    except InvalidRequest as error:
        error.param = "url"
        raise
    async with changing(services, actor) as change:
        endpoint = Endpoint(
            new_id("whe"),
            actor.organization_id,
            actor.is_operator,
            body.url,
            body.description,
            tuple(dict.fromkeys(body.events)),
            change.now,
        )
        await endpoints.add(change.connection, endpoint)
        await change.log("webhook_endpoint.created", endpoint.id, after=_shape(endpoint).model_dump())
    return EndpointMade(**_shape(endpoint).model_dump(), secret=services.webhooks.secret(endpoint.id))


@router.get("")
async def list_all(
    services: ServicesDep,
    actor: ReadTenants,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
    after: After = None,
) -> Listing[EndpointShown]:
    async with services.database.read() as connection:
        page = await endpoints.some(connection, actor.organization_id, limit, after)
    found: Listing[EndpointShown] = listing(page, _shape)
    return found


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, actor: ReadTenants) -> EndpointShown:
    return _shape(await _find(services, actor, id))


@router.post("/{id}/test", status_code=202)
async def test(id: str, services: ServicesDep, actor: WriteWebhooks) -> EndpointShown:
    """Send it an event of the type `webhook.test`."""
    endpoint = await _find(services, actor, id)
    event, body = test_event(endpoint.id, services.now())
    async with changing(services, actor) as change:
        now_ns = services.clock.now_ns()
        await deliveries.add(change.connection, event, endpoint.id, [TEST], endpoint.url, body, now_ns=now_ns)
        await change.log("webhook_endpoint.tested", endpoint.id)
    services.webhooks.wake()
    return _shape(endpoint)


@router.delete("/{id}")
async def delete(id: str, services: ServicesDep, actor: WriteWebhooks) -> EndpointDeleted:
    endpoint = await _find(services, actor, id)
    async with changing(services, actor) as change:
        await endpoints.remove(change.connection, endpoint.id)
        await deliveries.forget(change.connection, endpoint.id)
        await change.log("webhook_endpoint.deleted", endpoint.id, before=_shape(endpoint).model_dump())
    return EndpointDeleted(id=endpoint.id)


async def _find(services: Services, actor: Actor, id: str) -> Endpoint:
    async with services.database.read() as connection:
        found = await endpoints.find(connection, id, actor.organization_id)
    if found is None:
        raise missing("webhook endpoint", id)
    return found


def _shape(endpoint: Endpoint) -> EndpointShown:
    return EndpointShown(
        id=endpoint.id,
        url=endpoint.url,
        events=list(endpoint.events),
        description=endpoint.description,
        created_at=endpoint.created_at,
    )
