"""`/admin/v1/aliases`: virtual models, every version of them, and what a version would do."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import Actor, ReadAliases, WriteAliases
from tokenworks.control.admin.organization.shapes import Wish
from tokenworks.control.aliases import book
from tokenworks.control.changes import Change, changing
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import aliases
from tokenworks.control.storage.aliases import Version
from tokenworks.core.aliases import reading
from tokenworks.core.aliases.records import Alias
from tokenworks.core.errors import InvalidRequest, NotFound

router = APIRouter(prefix="/admin/v1/aliases", tags=["aliases"])

NOT_FOUND = "alias_not_found"
Number = Annotated[int, Field(ge=1, lt=2**53)]
Definition = Annotated[
    dict[str, Any],
    Field(
        description="`to` (a model's or alias's name, or names with weights), `sticky`, `canary` (`to`, `percent`), "
        "`shadow` (`to`, `percent`, `copies`), `rules` (each with `name`, `when`, `to`): as in the configuration file.",
        examples=[{"to": {"fast": 9, "smart": 1}, "canary": {"to": "new", "percent": 5}}],
    ),
]
Note = Annotated[str, Field(max_length=500, description="Why, for those who read its history.")]


class AliasWish(Wish):
    definition: Definition
    note: Note = ""
    expected_version: int | None = Field(
        None, ge=0, description="Refused when another one is in force by now; 0: when there is any."
    )


class RollbackWish(Wish):
    version: Number
    note: Note = ""


class AliasVersion(BaseModel):
    """Never changed once it is made."""

    object: str = "alias.version"
    name: str
    version: int
    definition: dict[str, Any] | None = Field(description="null: from this version on there is no such alias.")
    author: str
    note: str
    created_at: int = Field(description="Unix seconds.")


class AliasVersions(BaseModel):
    object: str = "list"
    data: list[AliasVersion]
    has_more: bool = False
    last_id: str | None = None


@router.get("")
async def list_all(services: ServicesDep, _: ReadAliases) -> AliasVersions:
    """The version of each that is in force."""
    async with services.database.read() as connection:
        newest = await aliases.newest(connection)
    return AliasVersions(data=[shape(each) for each in newest.values() if each.definition is not None])


@router.get("/{name:path}/versions/{version}")
async def retrieve_version(name: str, version: int, services: ServicesDep, _: ReadAliases) -> AliasVersion:
    async with services.database.read() as connection:
        return shape(await version_of(name, version, connection))


@router.get("/{name:path}/versions")
async def history(
    name: str,
    services: ServicesDep,
    _: ReadAliases,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[int | None, Query(ge=1, lt=2**53, description="The `last_id` of the page before.")] = None,
) -> AliasVersions:
    """Newest first, of aliases that are gone, too."""
    async with services.database.read() as connection:
        found = await aliases.of(connection, name, limit + 1, after)
    if not found and after is None:
        raise unknown(name)
    page = [shape(each) for each in found[:limit]]
    last = str(page[-1].version) if page else None
    return AliasVersions(data=page, has_more=len(found) > limit, last_id=last)


@router.post("/{name:path}/rollback")
async def rollback(name: str, body: RollbackWish, services: ServicesDep, actor: WriteAliases) -> AliasVersion:
    """A new version that says what an earlier one said."""
    async with changing(services, actor) as change:
        earlier = await version_of(name, body.version, change.connection)
        if earlier.definition is None:
            raise InvalidRequest(f"version: version {body.version} of {name!r} is its removal.", param="version")
        note = body.note or f"back to version {body.version}"
        return await _put(services, change, actor, name, earlier.definition, note)


@router.get("/{name:path}")
async def retrieve(name: str, services: ServicesDep, _: ReadAliases) -> AliasVersion:
    async with services.database.read() as connection:
        return shape(await in_force(name, connection))


@router.post("/{name:path}")
async def update(name: str, body: AliasWish, services: ServicesDep, actor: WriteAliases) -> AliasVersion:
    """In force at every connected gateway within a second. What is in force already makes no new version."""
    async with changing(services, actor) as change:
        newest = (await aliases.newest(change.connection)).get(name)
        number = newest.version if newest is not None and newest.definition is not None else 0
        if body.expected_version is not None and body.expected_version != number:
            raise InvalidRequest(
                f"expected_version: version {number} of {name!r} is in force, not {body.expected_version}; look at it "
                "and try again." if number else f"expected_version: there is no alias {name!r} in force.",
                param="expected_version",
                code="alias_changed",
            )  # fmt: skip
        return await _put(services, change, actor, name, body.definition, body.note)


@router.delete("/{name:path}")
async def remove(name: str, services: ServicesDep, actor: WriteAliases) -> AliasVersion:
    """Its history stays, and any version of it can be rolled back to."""
    async with changing(services, actor) as change:
        before = await in_force(name, change.connection)
        every = book.definitions(await book.records(change.connection))
        if users := [each.name for each in every.values() if name in each.names()]:
            raise InvalidRequest(f"The alias {name!r} is named by {', '.join(users)}; change that first.")
        return await _add(services, change, actor, name, None, "", before)


async def _put(
    services: Services, change: Change, actor: Actor, name: str, definition: dict[str, Any], note: str
) -> AliasVersion:
    newest = (await aliases.newest(change.connection)).get(name)
    if newest is not None and newest.definition == definition:
        return shape(newest)
    every = book.definitions(await book.records(change.connection))
    every[name] = readable(name, definition)
    require_sound(services, every, name)
    return await _add(services, change, actor, name, definition, note, newest)


async def _add(
    services: Services,
    change: Change,
    actor: Actor,
    name: str,
    definition: dict[str, Any] | None,
    note: str,
    before: Version | None,
) -> AliasVersion:
    number = before.version + 1 if before is not None else 1
    author = actor.email or f"{actor.key_name} ({actor.key_id})"
    made = Version(name, number, definition, False, author, note, change.now)
    await aliases.add(change.connection, made)
    await change.log(
        "alias.deleted" if definition is None else "alias.updated" if number > 1 else "alias.created",
        name,
        before=None if before is None else shape(before).model_dump(),
        after=shape(made).model_dump(),
    )
    every = await book.records(change.connection)
    change.announce(lambda: services.announcer.announce_aliases(every))
    return shape(made)


def readable(name: str, definition: dict[str, Any]) -> Alias:
    """InvalidRequest with everything that is wrong."""
    try:
        return reading.read(name, definition)
    except reading.Unreadable as error:
        where = reading.dotted(error.problems[0][0])
        raise InvalidRequest(f"definition: {error}.", param=f"definition.{where}" if where else "definition") from None


def require_sound(services: Services, every: dict[str, Alias], name: str) -> None:
    """InvalidRequest when aliases lead in a circle, or to what there is not."""
    if reason := book.problem(every, services.publisher.state.models, [name]):
        raise InvalidRequest(f"definition: {reason}.", param="definition", code="alias_unsound")


async def in_force(name: str, connection: AsyncConnection) -> Version:
    found = await aliases.of(connection, name, 1)
    if not found or found[0].definition is None:
        raise unknown(name)
    return found[0]


async def version_of(name: str, version: int, connection: AsyncConnection) -> Version:
    found = await aliases.find(connection, name, version)
    if found is None:
        raise NotFound(f"The alias {name!r} has no version {version}.", code=NOT_FOUND)
    return found


def unknown(name: str) -> NotFound:
    return NotFound(f"There is no alias {name!r}.", code=NOT_FOUND)


def shape(version: Version) -> AliasVersion:
    return AliasVersion(
        name=version.name,
        version=version.version,
        definition=version.definition,
        author=version.author,
        note=version.note,
        created_at=version.created_at,
    )
