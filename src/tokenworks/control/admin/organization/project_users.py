"""The users of a project."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import ReadTenants, WriteMembers
from tokenworks.control.admin.organization.shapes import (
    After,
    Deleted,
    Limit,
    Listing,
    Wish,
    listing,
    missing,
    open_project,
    project_of,
)
from tokenworks.control.changes import changing
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import members
from tokenworks.core.errors import InvalidRequest

router = APIRouter(prefix="/v1/organization/projects/{project_id}/users", tags=["users"])

ProjectRole = Literal["owner", "member"]


class NewProjectUser(Wish):
    role: ProjectRole
    user_id: str | None = None
    email: str | None = Field(None, description="In place of user_id.")


class ProjectUserChange(Wish):
    role: ProjectRole


class ProjectUser(BaseModel):
    object: Literal["organization.project.user"] = "organization.project.user"
    id: str
    email: str
    name: str
    role: str
    added_at: int


@router.post("")
async def create(project_id: str, body: NewProjectUser, services: ServicesDep, actor: WriteMembers) -> ProjectUser:
    async with changing(services, actor) as change:
        await open_project(change.connection, project_id, actor)
        user = None
        if body.user_id is not None:
            user = await members.user(change.connection, body.user_id, actor.organization_id)
        elif body.email is not None:
            user = await members.user_of(change.connection, body.email.strip().lower(), actor.organization_id)
        if user is None:
            raise InvalidRequest(
                "user_id: name a user of this organization by user_id or email; invite others first.", param="user_id"
            )
        if await members.in_project(change.connection, project_id, user.id):
            raise InvalidRequest(f"{user.email} is a user of this project already.", param="user_id")
        await members.join_project(change.connection, project_id, user.id, body.role, change.now)
        after = {"user_id": user.id, "email": user.email, "role": body.role}
        await change.log("project.user.added", user.id, project_id=project_id, after=after)
        return _shape(await _find(change.connection, project_id, user.id))


@router.get("")
async def list_all(
    project_id: str, services: ServicesDep, actor: ReadTenants, limit: Limit = 20, after: After = None
) -> Listing[ProjectUser]:
    async with services.database.read() as connection:
        await project_of(connection, project_id, actor)
        page = await members.every_in_project(connection, project_id, limit, after)
    found: Listing[ProjectUser] = listing(page, _shape)
    return found


@router.get("/{user_id}")
async def retrieve(project_id: str, user_id: str, services: ServicesDep, actor: ReadTenants) -> ProjectUser:
    async with services.database.read() as connection:
        await project_of(connection, project_id, actor)
        return _shape(await _find(connection, project_id, user_id))


@router.post("/{user_id}")
async def update(
    project_id: str, user_id: str, body: ProjectUserChange, services: ServicesDep, actor: WriteMembers
) -> ProjectUser:
    async with changing(services, actor) as change:
        await open_project(change.connection, project_id, actor)
        before = await _find(change.connection, project_id, user_id)
        await members.change_project_role(change.connection, project_id, user_id, body.role)
        await change.log(
            "project.user.updated",
            user_id,
            project_id=project_id,
            before={"role": before.role},
            after={"role": body.role},
        )
        return _shape(await _find(change.connection, project_id, user_id))


@router.delete("/{user_id}")
async def delete(project_id: str, user_id: str, services: ServicesDep, actor: WriteMembers) -> Deleted:
    async with changing(services, actor) as change:
        await project_of(change.connection, project_id, actor)
        before = await _find(change.connection, project_id, user_id)
        await members.leave_project(change.connection, project_id, user_id)
        await change.log("project.user.deleted", user_id, project_id=project_id, before={"role": before.role})
    return Deleted(object="organization.project.user.deleted", id=user_id)


async def _find(connection: AsyncConnection, project_id: str, user_id: str) -> members.ProjectUser:
    found = await members.in_project(connection, project_id, user_id)
    if found is None:
        raise missing("user", user_id)
    return found


def _shape(row: members.ProjectUser) -> ProjectUser:
    return ProjectUser(id=row.id, email=row.email, name=row.name, role=row.role, added_at=row.created_at)
