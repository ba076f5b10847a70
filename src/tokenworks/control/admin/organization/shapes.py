"""What every noun here shares: lists, deletions, the project that a path names."""

from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import Actor
from tokenworks.control.storage import tenants
from tokenworks.control.storage.pages import Page
from tokenworks.control.storage.tenants import Project
from tokenworks.core.errors import InvalidRequest, NotFound

T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")

Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(description="The `last_id` of the page before.", max_length=200)]


class Wish(BaseModel):
    """A body: what we cannot honour is refused, never dropped."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Listing(BaseModel, Generic[T]):
    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    object: str
    id: str
    deleted: bool = True


def listing(page: Page[R], make: Callable[[R], Any]) -> Any:
    return listed([make(row) for row in page.data], page.has_more)


def listed(data: list[Any], has_more: bool) -> Any:
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return Listing(data=data, first_id=first, last_id=last, has_more=has_more)


def missing(noun: str, id: str) -> NotFound:
    return NotFound(f"There is no {noun} {id!r}.", param="id", code=f"{noun.replace(' ', '_')}_not_found")


async def project_of(connection: AsyncConnection, id: str, actor: Actor) -> Project:
    found = await tenants.project(connection, id, actor.organization_id)
    if found is None:
        raise missing("project", id)
    return found


async def open_project(connection: AsyncConnection, id: str, actor: Actor) -> Project:
    """One that may still be changed."""
    found = await project_of(connection, id, actor)
    if found.archived_at is not None:
        raise InvalidRequest(f"The project {id!r} is archived.", param="project_id", code="project_archived")
    return found
