"""The users of an organization. They come by invites."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import Actor, ReadTenants, WriteMembers, refusal
from tokenworks.control.admin.organization.shapes import After, Deleted, Limit, Listing, Wish, listed, missing
from tokenworks.control.changes import changing
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import admin_keys, members, tables
from tokenworks.core.errors import InvalidRequest

router = APIRouter(prefix="/v1/organization/users", tags=["users"])

OrganizationRole = Literal["owner", "admin", "member", "viewer", "billing", "reader"]


def role_named(role: str) -> str:
    """`reader` is what OpenAI calls the smallest role."""
    return "viewer" if role == "reader" else role


class UserChange(Wish):
    role: OrganizationRole


class User(BaseModel):
    object: Literal["organization.user"] = "organization.user"
    id: str
    email: str
    name: str
    role: str
    added_at: int
    created: int
    is_service_account: bool = False
    user: dict[str, Any]
    projects: dict[str, Any]


@router.get("")
async def list_all(
    services: ServicesDep,
    actor: ReadTenants,
    limit: Limit = 20,
    after: After = None,
    emails: Annotated[list[str] | None, Query(max_length=100)] = None,
) -> Listing[User]:
    async with services.database.read() as connection:
        page = await members.every_user(connection, actor.organization_id, limit, after, emails)
        found: Listing[User] = listed([await _shape(connection, user) for user in page.data], page.has_more)
    return found


@router.get("/{user_id}")
async def retrieve(user_id: str, services: ServicesDep, actor: ReadTenants) -> User:
    async with services.database.read() as connection:
        return await _shape(connection, await _find(connection, user_id, actor))


@router.post("/{user_id}")
async def update(user_id: str, body: UserChange, services: ServicesDep, actor: WriteMembers) -> User:
    """The user's admin keys change with it."""
    role = role_named(body.role)
    await _may_change(services, actor, user_id, role)
    async with changing(services, actor) as change:
        before = await _find(change.connection, user_id, actor)
        if role != "owner":
            await _not_the_last_owner(change.connection, before)
        await members.change_role(change.connection, user_id, role)
        await admin_keys.change_role(change.connection, user_id, role)
        await change.log("user.updated", user_id, before={"role": before.role}, after={"role": role})
        return await _shape(change.connection, await _find(change.connection, user_id, actor))


@router.delete("/{user_id}")
async def delete(user_id: str, services: ServicesDep, actor: WriteMembers) -> Deleted:
    """The user's admin keys end with it."""
    await _may_change(services, actor, user_id)
    async with changing(services, actor) as change:
        before = await _find(change.connection, user_id, actor)
        await _not_the_last_owner(change.connection, before)
        await admin_keys.revoke(change.connection, tables.admin_keys.c.user_id == user_id, change.now)
        await members.remove_user(change.connection, user_id)
        await change.log("user.deleted", user_id, before={"email": before.email, "role": before.role})
    return Deleted(object="organization.user.deleted", id=user_id)


async def _may_change(services: Services, actor: Actor, user_id: str, *roles: str) -> None:
    async with services.database.read() as connection:
        user = await _find(connection, user_id, actor)
    if not actor.may_give(user.role, *roles):
        raise await refusal(services, actor, f"The role {actor.role.value!r} may not make or change an owner.")


async def _not_the_last_owner(connection: AsyncConnection, user: members.User) -> None:
    if user.role == "owner" and await members.owners(connection, user.organization_id) == 1:
        raise InvalidRequest("This is the last owner; make somebody else one first.", code="last_owner")


async def _find(connection: AsyncConnection, id: str, actor: Actor) -> members.User:
    found = await members.user(connection, id, actor.organization_id)
    if found is None:
        raise missing("user", id)
    return found


async def _shape(connection: AsyncConnection, user: members.User) -> User:
    return User(
        id=user.id,
        email=user.email,
        name=user.name,
        role=user.role,
        added_at=user.created_at,
        created=user.created_at,
        user={"object": "user", "id": user.id, "email": user.email, "name": user.name, "enabled": True},
        projects={"object": "list", "data": await members.projects_of(connection, user.id)},
    )
