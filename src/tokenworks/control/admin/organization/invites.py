"""Invites: a secret that makes whoever has it a user of the organization, once, for a week."""

import re
import time
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import Actor, ReadTenants, Role, WriteMembers, refusal
from tokenworks.control.admin.naming import Name
from tokenworks.control.admin.organization.project_users import ProjectRole
from tokenworks.control.admin.organization.shapes import (
    After,
    Deleted,
    Limit,
    Listing,
    Wish,
    listing,
    missing,
    open_project,
)
from tokenworks.control.admin.organization.users import OrganizationRole, role_named
from tokenworks.control.changes import Change, changing
from tokenworks.control.keys import ADMIN_PREFIX, INVITE_PREFIX, Secret, new_id
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import admin_keys, members, tenants
from tokenworks.core.errors import InvalidRequest, Unauthenticated

router = APIRouter(prefix="/v1/organization/invites", tags=["invites"])
accepting = APIRouter(prefix="/admin/v1/invites", tags=["invites"])

VALID_SECONDS = 7 * 86400


def _email(text: str) -> str:
    text = text.strip().lower()
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", text):
        raise ValueError("must be an e-mail address")
    return text


class InviteProject(Wish):
    id: str
    role: ProjectRole


class NewInvite(Wish):
    email: Annotated[str, Field(max_length=320), AfterValidator(_email)]
    role: OrganizationRole
    projects: list[InviteProject] = Field([], max_length=100)


class Invite(BaseModel):
    object: Literal["organization.invite"] = "organization.invite"
    id: str
    email: str
    role: str
    status: Literal["accepted", "expired", "pending"]
    projects: list[InviteProject]
    created_at: int
    expires_at: int
    accepted_at: int | None


class MadeInvite(Invite):
    token: str = Field(description="For the invited person: what /admin/v1/invites/accept takes. Shown this once.")


class Acceptance(Wish):
    token: str = Field(max_length=200)
    name: Name


class Accepted(BaseModel):
    object: Literal["organization.invite.accepted"] = "organization.invite.accepted"
    user_id: str
    role: str
    admin_key: str = Field(description="The new user's own admin key, with its role. Shown this once.")


@router.post("")
async def create(body: NewInvite, services: ServicesDep, actor: WriteMembers) -> MadeInvite:
    role = role_named(body.role)
    if not actor.may_give(role):
        raise await refusal(services, actor, f"The role {actor.role.value!r} may not invite an {role}.")
    secret = Secret.generate(INVITE_PREFIX)
    async with changing(services, actor) as change:
        for project in body.projects:
            await open_project(change.connection, project.id, actor)
        if await members.user_of(change.connection, body.email, actor.organization_id):
            raise InvalidRequest(f"email: {body.email} is a user of this organization already.", param="email")
        made = members.Invite(
            id=new_id("invite"),
            organization_id=actor.organization_id,
            email=body.email,
            role=role,
            projects=[project.model_dump() for project in body.projects],
            created_at=change.now,
            expires_at=change.now + VALID_SECONDS,
            accepted_at=None,
        )
        await members.create_invite(change.connection, secret, made)
        await change.log("invite.sent", made.id, after={"email": made.email, "role": role, "projects": made.projects})
    return MadeInvite(**_shape(made).model_dump(), token=secret.text)


@router.get("")
async def list_all(
    services: ServicesDep, actor: ReadTenants, limit: Limit = 20, after: After = None
) -> Listing[Invite]:
    async with services.database.read() as connection:
        page = await members.every_invite(connection, actor.organization_id, limit, after)
    found: Listing[Invite] = listing(page, _shape)
    return found


@router.get("/{id}")
async def retrieve(id: str, services: ServicesDep, actor: ReadTenants) -> Invite:
    async with services.database.read() as connection:
        found = await members.invite(connection, id, actor.organization_id)
    if found is None:
        raise missing("invite", id)
    return _shape(found)


@router.delete("/{id}")
async def delete(id: str, services: ServicesDep, actor: WriteMembers) -> Deleted:
    async with changing(services, actor) as change:
        found = await members.invite(change.connection, id, actor.organization_id)
        if found is None:
            raise missing("invite", id)
        if found.accepted_at is not None:
            raise InvalidRequest("This invite was accepted; remove the user instead.", code="invite_accepted")
        await members.remove_invite(change.connection, id)
        await change.log("invite.deleted", id, before={"email": found.email, "role": found.role})
    return Deleted(object="organization.invite.deleted", id=id)


@accepting.post("/accept")
async def accept(body: Acceptance, services: ServicesDep) -> Accepted:
    """Public: the token is the proof."""
    secret, admin_secret = Secret(body.token), Secret.generate(ADMIN_PREFIX)
    async with services.database.read() as connection:
        found = await members.invite_by(connection, secret)
        if found is None or await _archived(connection, found):
            raise Unauthenticated("The token of this invite is not known.", code="invalid_invite")
    actor = Actor(found.id, "invite", found.organization_id, Role(found.role), None, found.email, "", "", "accept")
    async with changing(services, actor) as change:
        invite = await members.invite(change.connection, found.id, found.organization_id)
        if invite is None or invite.accepted_at is not None or invite.expires_at <= change.now:
            raise InvalidRequest("This invite was used, withdrawn or has expired; ask for another.", param="token")
        if await members.user_of(change.connection, invite.email, invite.organization_id):
            raise InvalidRequest(f"{invite.email} is a user of this organization already.", param="token")
        user = await _join(change, invite, body.name)
        await admin_keys.create(
            change.connection,
            admin_secret,
            invite.organization_id,
            f"{invite.email}'s first key",
            invite.role,
            now=change.now,
            user_id=user.id,
        )
    return Accepted(user_id=user.id, role=user.role, admin_key=admin_secret.text)


async def _archived(connection: AsyncConnection, invite: members.Invite) -> bool:
    organization = await tenants.organization(connection, invite.organization_id)
    return organization is None or organization.archived_at is not None


async def _join(change: Change, invite: members.Invite, name: str) -> members.User:
    user = await members.create_user(
        change.connection, invite.organization_id, invite.email, name, invite.role, change.now
    )
    for place in invite.projects:
        project = await tenants.project(change.connection, place["id"], invite.organization_id)
        if project is not None and project.archived_at is None:
            await members.join_project(change.connection, project.id, user.id, place["role"], change.now)
    await members.accept_invite(change.connection, invite.id, change.now)
    await change.log("invite.accepted", invite.id, after={"user_id": user.id})
    await change.log("user.added", user.id, after={"email": user.email, "role": user.role})
    return user


def _shape(row: members.Invite) -> Invite:
    status: Literal["accepted", "expired", "pending"] = "pending"
    if row.accepted_at is not None:
        status = "accepted"
    elif row.expires_at <= time.time():
        status = "expired"
    return Invite(
        id=row.id,
        email=row.email,
        role=row.role,
        status=status,
        projects=[InviteProject.model_validate(project) for project in row.projects],
        created_at=row.created_at,
        expires_at=row.expires_at,
        accepted_at=row.accepted_at,
    )
