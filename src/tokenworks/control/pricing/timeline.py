"""How versions of one price follow one another: never two at once, never none in between, and the past stands. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tokenworks.control.pricing.entries import Entry
from tokenworks.core.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Plan:
    """Entries to add, and when others end earlier than they would have, by id."""

    added: tuple[Entry, ...]
    ended: dict[str, int]


def insert(versions: Iterable[Entry], new: Entry, now: int, new_id: Callable[[], str]) -> Plan:
    """What `new` does to the versions of its subject: the one in force ends where it begins, and if `new` ends, goes on
    where it ends. InvalidRequest for what would change the past, or overlap with a version that is to come."""
    if new.starts < now:
        raise InvalidRequest("from: lies in the past, and what was charged stands; leave it out for now.", param="from")
    if new.ends is not None and new.ends <= new.starts:
        raise InvalidRequest("until: must be later than 'from'.", param="until")
    ended: dict[str, int] = {}
    resumed: list[Entry] = []
    for old in versions:
        if (old.ends is not None and old.ends <= new.starts) or (new.ends is not None and new.ends <= old.starts):
            continue
        if old.starts >= new.starts and old.starts > now:
            raise InvalidRequest(
                f"from: overlaps with {old.id}, which begins at {old.starts}; end this one there with 'until', or "
                "remove that one first.",
                param="from",
            )
        ended[old.id] = new.starts
        if new.ends is not None and (old.ends is None or old.ends > new.ends):
            resumed.append(replace(old, id=new_id(), starts=new.ends, source=f"resumes {old.id}", created_at=now))
    return Plan((new, *resumed), ended)


def gap(versions: Iterable[Entry], now: int) -> int | None:
    """The first moment from now on at which no version is in force; None: there is none."""
    at = now
    for version in sorted(versions, key=lambda entry: entry.starts):
        if version.starts <= at and (version.ends is None or version.ends > at):
            if version.ends is None:
                return None
            at = version.ends
    return at
