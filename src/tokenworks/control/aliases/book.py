"""Versions of aliases: what the configuration file makes of them, what people do, and what gateways are told."""

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.config.records import AliasConfig
from tokenworks.control.storage import aliases
from tokenworks.control.storage.aliases import Version
from tokenworks.core.aliases import reading
from tokenworks.core.aliases.records import Alias
from tokenworks.core.aliases.resolving import cycle
from tokenworks.snapshot.records import AliasRecord

FILE = "the configuration file"


async def take_configuration(connection: AsyncConnection, stated: Mapping[str, AliasConfig], now: int) -> None:
    """A new version of what the file states now and did not before. What was changed since by other hands stays until
    the file says something else; what is gone from the file ends, unless somebody else has changed it."""
    current, filed = await aliases.newest(connection), await aliases.newest(connection, from_file=True)
    for name in dict.fromkeys((*stated, *filed)):
        before, wanted = filed.get(name), stated[name].definition if name in stated else None
        newest = current.get(name)
        if (before.definition if before is not None else None) == wanted:
            continue
        if wanted is None and newest != before:
            continue
        number = newest.version + 1 if newest is not None else 1
        note = "" if wanted is not None else "taken out of the file"
        await aliases.add(connection, Version(name, number, wanted, True, FILE, note, now))


async def records(connection: AsyncConnection) -> list[AliasRecord]:
    """Those that are in force."""
    dates = await aliases.dates(connection)
    newest = await aliases.newest(connection)
    return [
        AliasRecord(each.name, each.version, dates[each.name], each.definition)
        for each in newest.values()
        if each.definition is not None
    ]


def problem(every: Mapping[str, Alias], models: Collection[str], looked_at: Iterable[str]) -> str | None:
    """Why these aliases cannot be in force together; of `looked_at`, the names that they lead to are looked at, too."""
    if (way := cycle(every)) is not None:
        led = "leads to itself" if way[0] == way[-1] else "is longer than any may be"
        return f"the way {' -> '.join(way)} {led}; let one of them name a model"
    for name in looked_at:
        if name in models:
            return f"{name!r} is the name of a model; give the alias another one"
        for each in every[name].names():
            if each not in models and each not in every:
                known = ", ".join(sorted({*models, *every} - {name})) or "none"
                return f"{name!r} names {each!r}, which is neither a model nor an alias; there are: {known}"
    return None


def definitions(records: Iterable[AliasRecord]) -> dict[str, Alias]:
    return {record.name: reading.read(record.name, record.definition, record.version) for record in records}
