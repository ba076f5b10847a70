"""Projects. Archiving one ends its keys; it cannot be undone."""

from dataclasses import asdict
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from tokenworks.control.access import ReadTenants, WriteProjects
from tokenworks.control.admin.naming import Name
from tokenworks.control.admin.organization.shapes import (
    After,
    Limit,
    Listing,
    Wish,
    listing,
    open_project,
    project_of,
)
from tokenworks.control.changes import changing
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import api_keys, tables, tenants

router = APIRouter(prefix="/v1/organization/projects", tags=["projects"])


class ProjectWish(Wish):
    name: Name


class Project(BaseModel):
    object: Literal["organization.project"] = "organization.project"
    id: str
    name: str
    created_at: int
    archived_at: int | None
    status: Literal["active", "archived"]


@router.post("")
async def create(body: ProjectWish, services: ServicesDep, actor: WriteProjects) -> Project:
    async with changing(services, actor) as change:
        made = await tenants.create_project(change.connection, actor.organization_id, body.name, change.now)
        await change.log("project.created", made.id, project_id=made.id, after={"name": made.name})
    return _project(made)


@router.get("")
async def list_all(
    services: ServicesDep,
    actor: ReadTenants,
    limit: Limit = 20,
    after: After = None,
    include_archived: bool = False,
) -> Listing[Project]:
    async with services.database.read() as connection:
        page = await tenants.of_organization(connection, actor.organization_id, limit, after, archived=include_archived)
    found: Listing[Project] = listing(page, _project)
    return found


@router.get("/{project_id}")
async def retrieve(project_id: str, services: ServicesDep, actor: ReadTenants) -> Project:
    async with services.database.read() as connection:
        return _project(await project_of(connection, project_id, actor))


@router.post("/{project_id}")
async def update(project_id: str, body: ProjectWish, services: ServicesDep, actor: WriteProjects) -> Project:
    async with changing(services, actor) as change:
        before = await open_project(change.connection, project_id, actor)
        await tenants.rename_project(change.connection, project_id, body.name)
        await change.log(
            "project.updated",
            project_id,
            project_id=project_id,
            before={"name": before.name},
            after={"name": body.name},
        )
        return _project(await project_of(change.connection, project_id, actor))


@router.post("/{project_id}/archive")
async def archive(project_id: str, services: ServicesDep, actor: WriteProjects) -> Project:
    """Archiving again changes nothing."""
    async with changing(services, actor) as change:
        before = await project_of(change.connection, project_id, actor)
        if before.archived_at is None:
            await tenants.archive_project(change.connection, project_id, change.now)
            in_it = tables.api_keys.c.project_id == project_id
            digests = await api_keys.revoke_all(change.connection, in_it, change.now)
            change.announce(lambda: services.announcer.remove_keys(digests))
            after = {"keys_revoked": len(digests)}
            await change.log("project.archived", project_id, project_id=project_id, after=after)
        return _project(await project_of(change.connection, project_id, actor))


def _project(row: tenants.Project) -> Project:
    fields = {name: value for name, value in asdict(row).items() if name != "organization_id"}
    return Project(**fields, status="active" if row.archived_at is None else "archived")
