"""`/admin/v1/organizations`: the tenants of an installation. Only the operator makes, changes and archives them."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import WriteOrganizations
from tokenworks.control.admin.naming import Name
from tokenworks.control.admin.organization.shapes import After, Limit, Listing, Wish, listing, missing
from tokenworks.control.changes import changing
from tokenworks.control.keys import ADMIN_PREFIX, Secret
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import admin_keys, api_keys, tables, tenants
from tokenworks.core.errors import InvalidRequest

router = APIRouter(prefix="/admin/v1/organizations", tags=["organizations"])


class OrganizationWish(Wish):
    name: Name


class Organization(BaseModel):
    object: Literal["organization"] = "organization"
    id: str
    name: str
    created_at: int
    archived_at: int | None


class MadeOrganization(Organization):
    project_id: str = Field(description="Its first project.")
    admin_key: str = Field(description="Its first admin key, of the role owner. It is shown this once.")


@router.post("", status_code=201)
async def create(body: OrganizationWish, services: ServicesDep, actor: WriteOrganizations) -> MadeOrganization:
    secret = Secret.generate(ADMIN_PREFIX)
    async with changing(services, actor) as change:
        project = await tenants.create_organization(change.connection, body.name, change.now)
        made_id = project.organization_id
        await admin_keys.create(change.connection, secret, made_id, "first key", "owner", now=change.now)
        await change.log("organization.created", made_id, after={"name": body.name})
        made = await _find(change.connection, made_id)
    return MadeOrganization(**_shape(made).model_dump(), project_id=project.id, admin_key=secret.text)


@router.get("")
async def list_all(
    services: ServicesDep, _: WriteOrganizations, limit: Limit = 20, after: After = None
) -> Listing[Organization]:
    async with services.database.read() as connection:
        page = await tenants.every_organization(connection, limit, after)
    found: Listing[Organization] = listing(page, _shape)
    return found


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, _: WriteOrganizations) -> Organization:
    async with services.database.read() as connection:
        return _shape(await _find(connection, id))


@router.post("/{id}")
async def update(id: str, body: OrganizationWish, services: ServicesDep, actor: WriteOrganizations) -> Organization:
    async with changing(services, actor) as change:
        before = await _find(change.connection, id)
        await tenants.change_organization(change.connection, id, name=body.name)
        await change.log("organization.updated", id, before={"name": before.name}, after={"name": body.name})
        return _shape(await _find(change.connection, id))


@router.post("/{id}/archive")
async def archive(id: str, services: ServicesDep, actor: WriteOrganizations) -> Organization:
    """Its keys and admin keys end. Archiving again changes nothing."""
    if id == actor.organization_id:
        raise InvalidRequest("This is your own organization; it cannot be archived.", code="own_organization")
    async with changing(services, actor) as change:
        before = await _find(change.connection, id)
        if before.archived_at is None:
            await tenants.change_organization(change.connection, id, archived_at=change.now)
            its = tables.api_keys.c.project_id.in_(tenants.projects_of(id))
            digests = await api_keys.revoke_all(change.connection, its, change.now)
            await admin_keys.revoke(change.connection, tables.admin_keys.c.organization_id == id, change.now)
            change.announce(lambda: services.announcer.remove_keys(digests))
            await change.log("organization.archived", id, after={"keys_revoked": len(digests)})
        return _shape(await _find(change.connection, id))


async def _find(connection: AsyncConnection, id: str) -> tenants.Organization:
    found = await tenants.organization(connection, id)
    if found is None:
        raise missing("organization", id)
    return found


def _shape(row: tenants.Organization) -> Organization:
    return Organization(id=row.id, name=row.name, created_at=row.created_at, archived_at=row.archived_at)
