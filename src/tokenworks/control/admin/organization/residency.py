"""Where the requests of a project, or of all projects of an organization, may be answered and kept."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenworks.control.access import Actor, ReadTenants, WriteProjects
from tokenworks.control.admin.organization.shapes import Wish, open_project, project_of
from tokenworks.control.changes import changing
from tokenworks.control.residency import misplaced, unanswerable
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import residency
from tokenworks.core.errors import InvalidRequest, NotFound
from tokenworks.snapshot.records import ResidencyRecord

router = APIRouter(prefix="/v1/organization", tags=["residency"])

UNSATISFIABLE = "residency_unsatisfiable"
LONGEST = 100 * 366 * 86_400
Place = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[!-~]+$")]
Places = Annotated[list[Place], Field(min_length=1, max_length=100)]


class ResidencyWish(Wish):
    """Takes the place of the policy that there was."""

    regions: Places | None = None
    jurisdictions: Places | None = None
    retention_seconds: int | None = Field(None, ge=0, le=LONGEST)
    no_training: bool = False


class Residency(BaseModel):
    object: str
    id: str = Field(description="Of the project or the organization.")
    regions: list[str] | None
    jurisdictions: list[str] | None
    retention_seconds: int | None
    no_training: bool


class DeletedResidency(BaseModel):
    object: str
    deleted: bool = True


@router.get("/residency")
async def retrieve(services: ServicesDep, actor: ReadTenants) -> Residency:
    return await _get(services, "organization", actor.organization_id)


@router.post("/residency")
async def update(body: ResidencyWish, services: ServicesDep, actor: WriteProjects) -> Residency:
    """In force at every connected gateway within a second. Holds for every project, beside the project's own."""
    return await _set(services, actor, "", body)


@router.delete("/residency")
async def delete(services: ServicesDep, actor: WriteProjects) -> DeletedResidency:
    return await _remove(services, actor, "")


@router.get("/projects/{project_id}/residency")
async def retrieve_of_project(project_id: str, services: ServicesDep, actor: ReadTenants) -> Residency:
    async with services.database.read() as connection:
        await project_of(connection, project_id, actor)
    return await _get(services, "project", project_id)


@router.post("/projects/{project_id}/residency")
async def update_of_project(
    project_id: str, body: ResidencyWish, services: ServicesDep, actor: WriteProjects
) -> Residency:
    """In force at every connected gateway within a second. Holds beside the organization's."""
    return await _set(services, actor, project_id, body)


@router.delete("/projects/{project_id}/residency")
async def delete_of_project(project_id: str, services: ServicesDep, actor: WriteProjects) -> DeletedResidency:
    return await _remove(services, actor, project_id)


async def _get(services: Services, scope: str, id: str) -> Residency:
    async with services.database.read() as connection:
        found = await residency.find(connection, id)
    if found is None:
        raise _none(scope)
    return _shape(scope, found)


async def _set(services: Services, actor: Actor, project_id: str, body: ResidencyWish) -> Residency:
    scope, subject = _subject(actor, project_id)
    policy = ResidencyRecord(
        subject,
        None if body.regions is None else tuple(body.regions),
        None if body.jurisdictions is None else tuple(body.jurisdictions),
        body.retention_seconds,
        body.no_training,
    )
    if policy == ResidencyRecord(subject):
        raise InvalidRequest(
            "This policy asks for nothing: name regions, jurisdictions, retention_seconds or no_training."
        )
    async with changing(services, actor) as change:
        held = [policy]
        if project_id:
            await open_project(change.connection, project_id, actor)
            theirs = await residency.find(change.connection, actor.organization_id)
            held += [theirs] if theirs is not None else []
        _require_possible(services, held)
        before = await residency.find(change.connection, subject)
        await residency.put(change.connection, actor.organization_id, policy)
        shown = None if before is None else _shape(scope, before).model_dump()
        after = _shape(scope, policy).model_dump()
        await change.log("residency.updated", subject, project_id=project_id, before=shown, after=after)
        every = await residency.every(change.connection)
        change.announce(lambda: services.announcer.announce_residency(every))
    return _shape(scope, policy)


async def _remove(services: Services, actor: Actor, project_id: str) -> DeletedResidency:
    scope, subject = _subject(actor, project_id)
    async with changing(services, actor) as change:
        if project_id:
            await project_of(change.connection, project_id, actor)
        found = await residency.find(change.connection, subject)
        if found is None:
            raise _none(scope)
        await residency.remove(change.connection, subject)
        before = _shape(scope, found).model_dump()
        await change.log("residency.deleted", subject, project_id=project_id, before=before)
        every = await residency.every(change.connection)
        change.announce(lambda: services.announcer.announce_residency(every))
    return DeletedResidency(object=f"{scope}.residency.deleted")


def _require_possible(services: Services, policies: list[ResidencyRecord]) -> None:
    """InvalidRequest for what would only ever be refused: it is a mistake, or the operator has labels to state."""
    if reason := misplaced(policies, services.announcer.sinks):
        raise InvalidRequest(
            f"What this installation tells of every request would break this policy: {reason}. Its operator states in "
            "[installation] and [sinks] of the configuration file where that is.",
            code=UNSATISFIABLE,
        )
    if reason := unanswerable(policies, services.announcer.targets()):
        raise InvalidRequest(f"No model could be answered under this policy: {reason}.", code=UNSATISFIABLE)


def _subject(actor: Actor, project_id: str) -> tuple[str, str]:
    return ("project", project_id) if project_id else ("organization", actor.organization_id)


def _none(scope: str) -> NotFound:
    return NotFound(f"This {scope} has no residency policy.", code="residency_not_found")


def _shape(scope: str, policy: ResidencyRecord) -> Residency:
    return Residency(
        object=f"{scope}.residency",
        id=policy.id,
        regions=None if policy.regions is None else list(policy.regions),
        jurisdictions=None if policy.jurisdictions is None else list(policy.jurisdictions),
        retention_seconds=policy.retention,
        no_training=policy.no_training,
    )
