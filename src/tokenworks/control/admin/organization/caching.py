"""What a project wants of the cache of answers, within what the operator's policy of each model allows."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenworks.control.access import ReadTenants, WriteProjects
from tokenworks.control.admin.organization.shapes import Wish, open_project, project_of
from tokenworks.control.changes import changing
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import caches
from tokenworks.core.errors import InvalidRequest, NotFound
from tokenworks.snapshot.records import CacheRecord

router = APIRouter(prefix="/v1/organization/projects/{project_id}/cache", tags=["cache"])

LONGEST = 100 * 366 * 86_400


class CacheWish(Wish):
    """Takes the place of the one that there was. What is left out is as each model's policy says."""

    seconds: int | None = Field(
        None, ge=0, le=LONGEST, description="So old an answer may be; 0: none, unless a request asks for one."
    )
    similarity: float | None = Field(
        None, ge=0, le=1, description="Cosine similarity from which a similar question gets the answer; 0: never."
    )


class Cache(BaseModel):
    object: str = "project.cache"
    project_id: str
    seconds: int | None
    similarity: float | None


class DeletedCache(BaseModel):
    object: str = "project.cache.deleted"
    deleted: bool = True


@router.get("")
async def retrieve(project_id: str, services: ServicesDep, actor: ReadTenants) -> Cache:
    async with services.database.read() as connection:
        await project_of(connection, project_id, actor)
        found = await caches.find(connection, project_id)
    if found is None:
        raise _none()
    return _shape(found)


@router.post("")
async def update(project_id: str, body: CacheWish, services: ServicesDep, actor: WriteProjects) -> Cache:
    """In force at every connected gateway within a second. Models bound it by `cache` and `cache_max` of their policy;
    a request's own headers come first."""
    wish = CacheRecord(project_id, body.seconds, body.similarity)
    if wish == CacheRecord(project_id):
        raise InvalidRequest("This asks for nothing: name seconds or similarity.")
    async with changing(services, actor) as change:
        await open_project(change.connection, project_id, actor)
        before = await caches.find(change.connection, project_id)
        await caches.put(change.connection, wish)
        shown = None if before is None else _shape(before).model_dump()
        after = _shape(wish).model_dump()
        await change.log("cache.updated", project_id, project_id=project_id, before=shown, after=after)
        every = await caches.every(change.connection)
        change.announce(lambda: services.announcer.announce_caches(every))
    return _shape(wish)


@router.delete("")
async def delete(project_id: str, services: ServicesDep, actor: WriteProjects) -> DeletedCache:
    async with changing(services, actor) as change:
        await project_of(change.connection, project_id, actor)
        found = await caches.find(change.connection, project_id)
        if found is None:
            raise _none()
        await caches.remove(change.connection, project_id)
        await change.log("cache.deleted", project_id, project_id=project_id, before=_shape(found).model_dump())
        every = await caches.every(change.connection)
        change.announce(lambda: services.announcer.announce_caches(every))
    return DeletedCache()


def _none() -> NotFound:
    return NotFound("This project has no wish of its own for the cache.", code="cache_not_found")


def _shape(wish: CacheRecord) -> Cache:
    return Cache(project_id=wish.project_id, seconds=wish.seconds, similarity=wish.similarity)
