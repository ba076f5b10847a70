"""`POST /admin/v1/aliases/{name}/try`: what a version would do, and nothing is changed."""

import asyncio
from collections import Counter
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import ReadAliases
from tokenworks.control.admin.aliases import Definition, Number, in_force, readable, require_sound, unknown, version_of
from tokenworks.control.admin.organization.shapes import Wish
from tokenworks.control.aliases import book, trying
from tokenworks.control.aliases.trying import Division, Fate, Replay, World
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import aliases, api_keys
from tokenworks.core import request_ids
from tokenworks.core.aliases.asking import facts as facts_of
from tokenworks.core.aliases.records import SESSION, Facts
from tokenworks.core.caller import Caller
from tokenworks.core.errors import InvalidRequest
from tokenworks.core.money import nano_to_usd
from tokenworks.core.request import Request
from tokenworks.core.usage import BYTES_PER_TOKEN, Usage
from tokenworks.protocols import PROTOCOLS, USUAL, codec

router = APIRouter(prefix="/admin/v1/aliases", tags=["aliases"])

MOST_RECENT = 10_000


class Trial(Wish):
    """Neither `definition` nor `version`: the version in force."""

    definition: Definition | None = None
    version: Number | None = None
    request: dict[str, Any] | None = Field(None, description="The body of a request, as a caller would send it.")
    protocol: str = Field(USUAL, description="What the request is written in.")
    metadata: dict[str, str] = Field({}, description="What its caller would say in x-tokenworks-metadata.")
    session: str = Field("", max_length=512, description="The same for x-tokenworks-session.")
    key_id: str | None = Field(None, max_length=100, description="Whose request it is.")
    recent: Annotated[int, Field(ge=0, le=MOST_RECENT)] = Field(
        0, description="So many of the requests that named the alias in the last month are divided, too."
    )
    of_model: str = Field("", max_length=256, description="Recent requests for this model instead.")


class StepTaken(BaseModel):
    alias: str
    version: int
    rule: str | None = Field(description="The rule's name, `canary`, or null: neither took it.")
    bucket: int = Field(description="Of a million; a canary of p percent takes those below p * 10,000.")
    to: str


class Sample(BaseModel):
    """What becomes of the request."""

    model: str
    steps: list[StepTaken]
    shadow: str | None
    refused: str | None
    price_usd: str | None


class Divided(BaseModel):
    requests: dict[str, int] = Field(description="By the model that answers.")
    refused: list[dict[str, Any]]
    price_usd: str = Field(description="Of what they used, at the prices of now.")


class Recent(BaseModel):
    requests: int
    current: Divided | None
    proposed: Divided
    moves: list[dict[str, Any]] = Field(description="Requests that another model would answer.")
    moved: int
    guessed: int = Field(
        description="Of so many, usage does not keep what the choice depends on: metadata, users, tools. They count as "
        "requests without, and as kept together by what kept them together then."
    )


class TrialResult(BaseModel):
    object: str = "alias.trial"
    name: str
    current_version: int | None
    version: int | None = Field(description="null: it is a proposal.")
    shares: dict[str, float] = Field(description="By model, of 10,000 made-up conversations like the request.")
    sample: Sample
    sample_now: Sample | None = Field(description="The same in the version that is in force.")
    recent: Recent | None


@router.post("/{name:path}/try")
async def try_out(name: str, body: Trial, services: ServicesDep, _: ReadAliases) -> TrialResult:
    """Nothing is changed, and nobody is asked."""
    state, now = services.publisher.state, services.now()
    async with services.database.read() as connection:
        every = book.definitions(await book.records(connection))
        current = every.get(name)
        definition, version = body.definition, body.version
        if definition is None:
            found = await (in_force(name, connection) if version is None else version_of(name, version, connection))
            definition, version = found.definition, found.version
        if definition is None:
            raise unknown(name)
        caller = await _caller(connection, body.key_id)
        rows = await aliases.recent(connection, name, body.of_model, body.recent, now) if body.recent else []
        stickies = {each.version: _sticky(each) for each in await aliases.of(connection, name, 1_000)} if rows else {}
    proposed = readable(name, definition)
    changed = {**every, name: proposed}
    require_sound(services, changed, name)
    before, after = World(state, every, now), World(state, changed, now)
    facts, usage = _facts(body, caller, now)
    sample = trying.fate(after, name, facts, caller, usage)
    sample_now = trying.fate(before, name, facts, caller, usage) if current is not None else None
    shares = await asyncio.to_thread(trying.shares, after, name, facts)
    replay = await asyncio.to_thread(trying.replay, before, after, name, rows, stickies) if body.recent else None
    return TrialResult(
        name=name,
        current_version=current.version if current is not None else None,
        version=version if body.definition is None else None,
        shares=shares,
        sample=_sample(sample),
        sample_now=_sample(sample_now) if sample_now is not None else None,
        recent=_recent(replay, current is not None) if replay is not None else None,
    )


async def _caller(connection: AsyncConnection, key_id: str | None) -> Caller:
    if key_id is None:
        return Caller("", "", "")
    key = await api_keys.find(connection, key_id)
    if key is None:
        raise InvalidRequest(f"key_id: there is no API key {key_id!r}.", param="key_id")
    models = frozenset(key.models) if key.models is not None else None
    regions = frozenset(key.regions) if key.regions is not None else None
    return Caller(key.id, key.project_id, key.organization_id, models, regions)


def _facts(body: Trial, caller: Caller, now: int) -> tuple[Facts, Usage]:
    """Of the sample, or of a request of which nothing is said; and what it is likely to take."""
    if body.request is None:
        metadata, session = body.metadata, body.session
        facts = Facts(
            caller.key_id,
            caller.project_id,
            caller.organization_id,
            session=session or request_ids.new(),
            protocol=body.protocol,
            metadata=metadata,
            now=now,
        )
        return facts, Usage(output=trying.USUAL_OUTPUT)
    request = _request(body)
    request.labels, request.session, request.id = body.metadata, body.session, request_ids.new()
    output = min(request.max_output_tokens or trying.USUAL_OUTPUT, trying.USUAL_OUTPUT)
    return facts_of(request, caller, now), Usage(input=len(request.body) // BYTES_PER_TOKEN, output=output)


def _request(body: Trial) -> Request:
    """InvalidRequest as its caller would get it."""
    if body.protocol not in PROTOCOLS:
        raise InvalidRequest(
            f"protocol: {body.protocol!r} is unknown; known: {', '.join(sorted(PROTOCOLS))}.", param="protocol"
        )
    return codec(body.protocol).decode_request(_ENCODE(body.request))


def _sticky(version: aliases.Version) -> str:
    return str((version.definition or {}).get("sticky", SESSION))


def _sample(fate: Fate) -> Sample:
    found = fate.resolution
    steps = [
        StepTaken(alias=each.alias, version=each.version, rule=each.rule or None, bucket=each.bucket, to=each.to)
        for each in (found.steps if found is not None else ())
    ]
    return Sample(
        model=fate.model,
        steps=steps,
        shadow=(found.shadow or None) if found is not None else None,
        refused=fate.refused,
        price_usd=None if fate.price is None else nano_to_usd(fate.price),
    )


def _recent(replay: Replay, compared: bool) -> Recent:
    """`compared`: there is a version in force."""
    moves = replay.moves if compared else Counter[tuple[str, str]]()
    return Recent(
        requests=replay.after.requests.total(),
        current=_divided(replay.before) if compared else None,
        proposed=_divided(replay.after),
        moves=[{"from": old, "to": new, "requests": count} for (old, new), count in moves.most_common()],
        moved=moves.total(),
        guessed=replay.guessed,
    )


def _divided(division: Division) -> Divided:
    refused = [
        {"model": model, "reason": reason, "requests": count}
        for (model, reason), count in division.refused.most_common()
    ]
    return Divided(
        requests=dict(division.requests.most_common()), refused=refused, price_usd=nano_to_usd(division.price)
    )


_ENCODE = msgspec.json.Encoder().encode
