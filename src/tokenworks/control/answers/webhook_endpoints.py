"""`/v1/webhook_endpoints` as gateways forward it: where a project's events are sent, in the form of OpenAI's API."""

import dataclasses
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from tokenworks.control import events
from tokenworks.control.answers.webhooks import Undelivered
from tokenworks.control.keys import new_id
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import deliveries, endpoints, tenants
from tokenworks.control.storage.endpoints import Endpoint
from tokenworks.control.tenant import OBJECTS, Tenant, TenantDep
from tokenworks.core.errors import InvalidRequest, NotFound

MOST_OF_A_PROJECT = 50
MOST_LISTED = 100
BOTH_SECONDS = 24 * 3600
"""How long the old secret signs too, for who asks for that."""
SAMPLE = {"batch": "batch_test", "response": "resp_test"}
"""What a test event is about."""

router = APIRouter(prefix=f"{OBJECTS}/v1/webhook_endpoints", include_in_schema=False)
event_types = APIRouter(prefix=f"{OBJECTS}/v1/webhook_event_types", include_in_schema=False)

Event = Literal[events.OF_PROJECTS]  # type: ignore[valid-type]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Address = Annotated[str, Field(min_length=1, max_length=2000)]
Events = Annotated[list[Event], Field(min_length=1)]


class _Wish(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class NewEndpoint(_Wish):
    name: Name
    url: Address
    event_types: Events


class Changes(_Wish):
    """What is left out stays."""

    name: Name | None = None
    url: Address | None = None
    event_types: Events | None = None


class Rotation(_Wish):
    keep_old_secret_active_for_24_hours: bool = False


class Test(_Wish):
    event_type: Event


@event_types.get("")
async def list_event_types() -> dict[str, Any]:
    return {"object": "list", "data": list(events.OF_PROJECTS)}


@router.post("")
async def create(body: NewEndpoint, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    _check(services, body.url)
    now = services.now()
    async with services.database.write() as connection:
        if await endpoints.count(connection, tenant.project_id) >= MOST_OF_A_PROJECT:
            message = f"A project has at most {MOST_OF_A_PROJECT} webhook endpoints; delete one first."
            raise InvalidRequest(message, code="too_many_webhook_endpoints")
        organization_id = await tenants.owner_of_project(connection, tenant.project_id)
        assert organization_id is not None  # noqa: S101 -- the key is of this project
        endpoint = Endpoint(
            new_id("whe"),
            organization_id,
            False,
            body.url,
            body.name,
            tuple(dict.fromkeys(body.event_types)),
            now,
            project_id=tenant.project_id,
            updated_at=now,
        )
        await endpoints.add(connection, endpoint)
    return _with_secret(services, endpoint)


@router.get("")
async def list_all(
    services: ServicesDep,
    tenant: TenantDep,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 20,
    after: Annotated[str | None, Query(max_length=128)] = None,
) -> dict[str, Any]:
    async with services.database.read() as connection:
        page = await endpoints.some_of_project(connection, tenant.project_id, limit, after)
    data = [_view(services, endpoint) for endpoint in page.data]
    ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
    return {"object": "list", "data": data, **ends, "has_more": page.has_more}


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    return _view(services, await _find(services, tenant, id))


@router.post("/{id}")
async def update(id: str, body: Changes, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    endpoint = await _find(services, tenant, id)
    wanted = {"url": body.url, "description": body.name, "events": body.event_types}
    values = {name: value for name, value in wanted.items() if value is not None}
    if body.url is not None:
        _check(services, body.url)
    changed = any(value != getattr(endpoint, name) for name, value in values.items())
    return _view(services, await _change(services, endpoint, values) if changed else endpoint)


@router.delete("/{id}")
async def delete(id: str, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    """What was not delivered yet is not delivered."""
    endpoint = await _find(services, tenant, id)
    async with services.database.write() as connection:
        await endpoints.remove(connection, endpoint.id)
        await deliveries.forget(connection, endpoint.id)
    return {"id": endpoint.id, "object": "webhook_endpoint.deleted", "deleted": True}


@router.post("/{id}/rotate_secret")
async def rotate_secret(
    id: str, services: ServicesDep, tenant: TenantDep, body: Rotation | None = None
) -> dict[str, Any]:
    endpoint = await _find(services, tenant, id)
    keep = body is not None and body.keep_old_secret_active_for_24_hours
    values = {
        "secret_number": endpoint.secret_number + 1,
        "both_until": services.now() + BOTH_SECONDS if keep else None,
    }
    return _with_secret(services, await _change(services, endpoint, values))


@router.post("/{id}/test")
async def test(id: str, body: Test, services: ServicesDep, tenant: TenantDep) -> dict[str, Any]:
    """Sends a sample at once, and tells what the endpoint answered."""
    endpoint = await _find(services, tenant, id)
    event_id, sample = events.ended(body.event_type, SAMPLE[body.event_type.partition(".")[0]], services.now())
    try:
        status = await services.webhooks.send_once(endpoint, event_id, sample)
    except Undelivered as error:
        message = f"The test did not reach {endpoint.url}: {error}."
        raise InvalidRequest(message, code="webhook_endpoint_unreachable") from error
    told = {"webhook_endpoint_id": endpoint.id, "event_type": body.event_type, "status_code": status}
    return {"object": "webhook_endpoint.test", "success": True, **told}


def _check(services: Services, url: str) -> None:
    try:
        services.webhooks.check(url)
    except InvalidRequest as error:
        error.param = "url"
        raise


async def _find(services: Services, tenant: Tenant, id: str) -> Endpoint:
    async with services.database.read() as connection:
        found = await endpoints.get(connection, id)
    if found is None or found.project_id != tenant.project_id:
        raise NotFound(f"There is no webhook endpoint {id!r}.", param="id", code="webhook_endpoint_not_found")
    return found


async def _change(services: Services, endpoint: Endpoint, values: dict[str, Any]) -> Endpoint:
    values = {**values, "updated_at": services.now()}
    async with services.database.write() as connection:
        await endpoints.change(connection, endpoint.id, values)
        if "url" in values:
            await deliveries.redirect(connection, endpoint.id, values["url"])
    return dataclasses.replace(endpoint, **values)


def _view(services: Services, endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "name": endpoint.description,
        "url": endpoint.url,
        "event_types": list(endpoint.events),
        "created_at": endpoint.created_at,
        "updated_at": endpoint.updated_at,
        "signing_secret_hint": f"whsec_...{services.webhooks.secret(endpoint.signer())[-4:]}",
    }


def _with_secret(services: Services, endpoint: Endpoint) -> dict[str, Any]:
    return _view(services, endpoint) | {"signing_secret": services.webhooks.secret(endpoint.signer())}
