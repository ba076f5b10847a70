"""Changes of the price book, and what follows from it for gateways. What an entry charges is never changed; a new one
takes over where it begins."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.keys import new_id
from tokenworks.control.offers import Offer
from tokenworks.control.pricing import timeline
from tokenworks.control.pricing.entries import CONFIG, COST, PRICE, Entry, Subject, Terms
from tokenworks.control.storage import prices
from tokenworks.core.errors import InvalidRequest
from tokenworks.snapshot.records import PriceRecord

LATE_SECONDS = 3600
"""Gateways keep a version so long after its end: their clocks differ, and attempts under way began before."""
make_id = partial(new_id, "price")


@dataclass(frozen=True, slots=True)
class Published:
    """What the snapshot holds: versions in force now or later, by model and by `provider/model`."""

    prices: Mapping[str, tuple[PriceRecord, ...]]
    costs: Mapping[str, tuple[PriceRecord, ...]]


def published(entries: Iterable[Entry], now: int) -> Published:
    sides: dict[str, dict[str, tuple[PriceRecord, ...]]] = {PRICE: {}, COST: {}}
    for entry in entries:
        if entry.ends is None or entry.ends > max(now - LATE_SECONDS, entry.starts):
            named = sides[entry.subject.side]
            named[entry.subject.name] = (*named.get(entry.subject.name, ()), entry.record())
    return Published(sides[PRICE], sides[COST])


async def put(
    connection: AsyncConnection, subject: Subject, terms: Terms, starts: int, ends: int | None, source: str, now: int
) -> Entry | None:
    """The new version; None when the same terms are in force from then on already."""
    versions = await prices.of(connection, subject)
    if ends is None and any(each.in_force(starts) and each.ends is None and each.terms == terms for each in versions):
        return None
    entry = Entry(make_id(), subject, terms, starts, ends, source, now)
    plan = timeline.insert(versions, entry, now, make_id)
    for ended, end in plan.ended.items():
        await prices.end(connection, ended, end)
    for each in plan.added:
        await prices.add(connection, each)
    return entry


async def stop(connection: AsyncConnection, entry: Entry, now: int) -> None:
    """Take a version back that is to come, or end one that is in force."""
    if entry.ends is not None and entry.ends <= now:
        raise InvalidRequest(f"{entry.id} has ended; what was charged stands.", param="id")
    if entry.starts > now:
        await prices.remove(connection, entry.id)
    else:
        await prices.end(connection, entry.id, now)


def require_unbroken(offers: Mapping[str, Offer], entries: Iterable[Entry], subject: Subject, now: int) -> None:
    """InvalidRequest when a change leaves a model that others answer without a price at some time."""
    offer = offers.get(subject.name)
    if subject.side != PRICE or not subject.is_everybodys or offer is None or not offer.targets:
        return
    at = timeline.gap([entry for entry in entries if entry.subject == subject], now)
    if at is not None:
        raise InvalidRequest(
            f"The model {subject.name!r} would have no price from {'now' if at <= now else at} on; set the price that "
            "follows first.",
            param="until",
        )


async def take_configuration(
    connection: AsyncConnection, offers: Mapping[str, Offer], costs: Mapping[str, dict[str, int]], now: int
) -> None:
    """Make what stands in the file the version in force. What the file states is stated only there."""
    stated = {Subject(PRICE, name): offer.price for name, offer in offers.items() if offer.price is not None}
    stated |= {Subject(COST, name): rates for name, rates in costs.items()}
    known: dict[Subject, list[Entry]] = {}
    for entry in await prices.every(connection):
        known.setdefault(entry.subject, []).append(entry)
    for subject in {*stated, *known}:
        rates = stated.get(subject)
        for entry in known.get(subject, []):
            theirs = entry.source == CONFIG or rates is not None
            if theirs and (entry.starts > now or (entry.in_force(now) and _differs(entry, rates))):
                await stop(connection, entry, now)
        if rates is not None and not any(
            entry.in_force(now) and not _differs(entry, rates) for entry in known.get(subject, [])
        ):
            await prices.add(connection, Entry(make_id(), subject, Terms(rates), now, None, CONFIG, now))


def _differs(entry: Entry, rates: dict[str, int] | None) -> bool:
    return entry.source != CONFIG or entry.ends is not None or entry.terms != Terms(rates or {})


def unpriced(offers: Mapping[str, Offer], entries: Iterable[Entry], now: int) -> list[str]:
    """Models that others answer and that nobody has put a price on."""
    priced = {e.subject.name for e in entries if e.subject == Subject(PRICE, e.subject.name) and e.in_force(now)}
    return [name for name, offer in offers.items() if offer.targets and name not in priced]
