"""`/admin/v1/prices`: the price book. What we charge, what we pay, since when and for whom."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import ReadPrices, WritePrices
from tokenworks.control.admin.organization.shapes import Wish, missing
from tokenworks.control.changes import Change, changing
from tokenworks.control.pricing import book
from tokenworks.control.pricing.checking import Finding, findings
from tokenworks.control.pricing.entries import CONFIG, COST, Entry, Subject, Terms, stated_rates, stated_when, terms_of
from tokenworks.control.pricing.importing import Import, matches, read_all
from tokenworks.control.services import Services, ServicesDep
from tokenworks.control.storage import prices, tenants
from tokenworks.core.errors import InvalidRequest
from tokenworks.core.price import uncounted

router = APIRouter(prefix="/admin/v1/prices", tags=["prices"])

Usd = str | int | float
Side = Literal["price", "cost"]
UnixSeconds = Annotated[int | None, Field(ge=0, lt=2**33)]


class NewWhen(Wish):
    """Conditions, all of which must hold, and what they do to rates: factors of them, or rates in their place."""

    tier: str | None = Field(None, min_length=1, max_length=64, description="batch, flex, priority, ...")
    above: int | None = Field(None, ge=1, le=10**9, description="More tokens of prompt than this.")
    region: str | None = Field(None, min_length=1, max_length=64)
    factors: Usd | dict[str, Usd] | None = Field(None, description="By kind, or one for all of them.")
    rates: dict[str, Usd] | None = None


class NewPrice(Wish):
    """It takes over from the version that is in force at `from`; if it has an `until`, that one goes on then."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    side: Side = "price"
    subject: str = Field(min_length=1, max_length=300, description="A model, or provider/model on the side of costs.")
    rates: dict[str, Usd] = Field(
        description="USD by kind: per million tokens, per request, image or second.", max_length=20
    )
    when: list[NewWhen] = Field([], max_length=50)
    organization_id: str | None = Field(None, description="Only for its requests.")
    project_id: str | None = Field(None, description="Only for its requests; its organization is known.")
    starts: UnixSeconds = Field(None, alias="from", description="Unix seconds; now when left out.")
    ends: UnixSeconds = Field(None, alias="until", description="Exclusive; for good when left out.")


class When(BaseModel):
    tier: str | None
    above: int | None
    region: str | None
    factors: dict[str, str]


class Price(BaseModel):
    """One version."""

    object: Literal["price"] = "price"
    id: str
    side: Side
    subject: str
    organization_id: str | None
    project_id: str | None
    state: Literal["past", "in_force", "scheduled"]
    starts: int = Field(description="Unix seconds.", serialization_alias="from")
    ends: int | None = Field(serialization_alias="until")
    rates: dict[str, str] = Field(description="USD, exact decimal text.")
    when: list[When]
    source: str = Field(description="`config` when it stands in the configuration file.")
    created_at: int


class PriceList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Price]


class NewImport(Wish):
    """A price file in litellm's format. Without `names` it gives costs to the targets whose provider and model it
    knows."""

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    document: Any = Field(description="The file's content.")
    side: Side = "cost"
    names: dict[str, str] | None = Field(None, description="Name in the file -> our subject.")
    starts: UnixSeconds = Field(None, alias="from")
    dry_run: bool = Field(False, description="Only tell what would change.")
    source: str = Field("import", min_length=1, max_length=200, description="What is noted as the versions' source.")


class Imported(BaseModel):
    object: Literal["price_import"] = "price_import"
    dry_run: bool
    set: list[Price]
    unchanged: list[str]
    missing: list[str] = Field(description="Subjects that the file does not know, or states no usable price of.")
    problems: dict[str, str] = Field(description="Why an entry cannot be used, by its name in the file.")
    not_understood: dict[str, list[str]] = Field(description="Keys about prices that were not understood, by entry.")


class Findings(BaseModel):
    object: Literal["list"] = "list"
    data: list[Finding]


@router.get("")
async def list_versions(
    services: ServicesDep,
    _: ReadPrices,
    side: Side | None = None,
    subject: Annotated[str | None, Query(max_length=300)] = None,
    history: bool = False,
) -> PriceList:
    """Those in force and those to come; with `history` also what was in force before."""
    now = services.now()
    async with services.database.read() as connection:
        found = await prices.every(connection)
    chosen = [
        _shape(entry, now)
        for entry in sorted(found, key=_order)
        if (side in (None, entry.subject.side))
        and (subject in (None, entry.subject.name))
        and (history or entry.ends is None or entry.ends > now)
    ]
    return PriceList(data=chosen)


@router.post("", status_code=201)
async def put(body: NewPrice, services: ServicesDep, actor: WritePrices) -> Price:
    """In force at every connected gateway within a second, or from `from` on. The past stands."""
    terms = terms_of(body.rates, [each.model_dump() for each in body.when])
    async with changing(services, actor) as change:
        subject = await _subject(change.connection, body)
        _require_countable(services, subject, terms)
        await _require_ours(change.connection, subject, change.now)
        starts = change.now if body.starts is None else body.starts
        made = await book.put(change.connection, subject, terms, starts, body.ends, actor.key_name, change.now)
        if made is None:
            versions = await prices.of(change.connection, subject)
            return _shape(next(each for each in versions if each.in_force(starts)), change.now)
        await _publish(change, services, subject)
        await change.log("price.created", made.id, after=_shape(made, change.now).model_dump(by_alias=True))
    return _shape(made, change.now)


@router.delete("/{id}")
async def delete(id: str, services: ServicesDep, actor: WritePrices) -> Price:
    """Take back a version that is to come, or end one that is in force: then what is beneath it applies."""
    async with changing(services, actor) as change:
        found = await prices.find(change.connection, id)
        if found is None:
            raise missing("price", id)
        await _require_ours(change.connection, found.subject, change.now)
        await book.stop(change.connection, found, change.now)
        await _publish(change, services, found.subject)
        await change.log("price.ended", id, before=_shape(found, change.now).model_dump(by_alias=True))
    return _shape(found, change.now)


@router.post("/import")
async def import_file(body: NewImport, services: ServicesDep, actor: WritePrices) -> Imported:
    """All of it or nothing: a malformed file changes nothing."""
    file = read_all(body.document)
    chosen = matches(file, body.names, services.publisher.state)
    outcome = Import.of(file, chosen)
    done: list[Price] = []
    async with changing(services, actor) as change:
        trial = await change.connection.begin_nested()
        for name, terms in outcome.terms.items():
            subject = Subject(body.side, name)
            await _require_ours(change.connection, subject, change.now)
            starts = change.now if body.starts is None else body.starts
            made = await book.put(change.connection, subject, terms, starts, None, body.source, change.now)
            if made is None:
                outcome.unchanged.append(name)
            else:
                done.append(_shape(made, change.now))
        if body.dry_run:
            await trial.rollback()
        elif done:
            change.announce(_announcement(services, await prices.every(change.connection), change.now))
            await change.log("price.imported", body.source, after={"ids": [price.id for price in done]})
    return Imported(
        dry_run=body.dry_run,
        set=done,
        unchanged=outcome.unchanged,
        missing=outcome.missing,
        problems=outcome.problems,
        not_understood=outcome.unknown,
    )


@router.get("/check")
async def check(services: ServicesDep, _: ReadPrices) -> Findings:
    """What an operator should look at: no price, a price that ends, a cost that nobody stated, sales below cost."""
    async with services.database.read() as connection:
        entries = await prices.every(connection)
    return Findings(data=findings(services.publisher.state, entries, services.now()))


def _order(entry: Entry) -> tuple[object, ...]:
    subject = entry.subject
    return subject.side, subject.name, subject.organization_id, subject.project_id, entry.starts


async def _subject(connection: AsyncConnection, body: NewPrice) -> Subject:
    organization_id, project_id = body.organization_id or "", body.project_id or ""
    if body.side == COST:
        if organization_id or project_id:
            raise InvalidRequest("organization_id: a cost is the same for everybody.", param="organization_id")
        if "/" not in body.subject.strip("/"):
            raise InvalidRequest('subject: a cost is of "provider/model" (ours: "local/model").', param="subject")
    if project_id:
        owner = await tenants.owner_of_project(connection, project_id)
        if owner is None or organization_id not in ("", owner):
            raise InvalidRequest(f"project_id: there is no project {project_id!r}.", param="project_id")
        organization_id = owner
    elif organization_id and await tenants.organization(connection, organization_id) is None:
        raise InvalidRequest(f"organization_id: there is no {organization_id!r}.", param="organization_id")
    return Subject(body.side, body.subject, organization_id, project_id)


def _require_countable(services: Services, subject: Subject, terms: Terms) -> None:
    """InvalidRequest for what would never be charged."""
    offer = services.offers.get(subject.name)
    foreign = bool(offer and offer.targets) if subject.side != COST else not subject.name.startswith("local/")
    if foreign and (problem := uncounted(terms.rates)):
        raise InvalidRequest(f"rates: {subject.name!r} {problem}.", param="rates")


async def _require_ours(connection: AsyncConnection, subject: Subject, now: int) -> None:
    if any(each.source == CONFIG and each.in_force(now) for each in await prices.of(connection, subject)):
        raise InvalidRequest(
            f"subject: {subject.name!r} is priced in the configuration file; change it there, or remove it there "
            "first.",
            param="subject",
        )


async def _publish(change: Change, services: Services, subject: Subject) -> None:
    entries = await prices.every(change.connection)
    book.require_unbroken(services.offers, entries, subject, change.now)
    change.announce(_announcement(services, entries, change.now))


def _announcement(services: Services, entries: list[Entry], now: int) -> Any:
    return lambda: services.announcer.announce_prices(book.published(entries, now))


def _shape(entry: Entry, now: int) -> Price:
    past = entry.ends is not None and entry.ends <= now
    return Price(
        id=entry.id,
        side="cost" if entry.subject.side == COST else "price",
        subject=entry.subject.name,
        organization_id=entry.subject.organization_id or None,
        project_id=entry.subject.project_id or None,
        state="past" if past else "scheduled" if entry.starts > now else "in_force",
        starts=entry.starts,
        ends=entry.ends,
        rates=stated_rates(entry.terms.rates),
        when=[When(**each) for each in stated_when(entry.terms.when)],
        source=entry.source,
        created_at=entry.created_at,
    )
