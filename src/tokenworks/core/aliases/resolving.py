"""Which model a request goes to that names an alias. A pure function of the request's facts and the aliases."""

from collections.abc import Callable, Iterable, Mapping

from tokenworks.core.aliases.hashing import bucket, chosen
from tokenworks.core.aliases.records import PARTS, REQUEST, Alias, Facts, Resolution, Step

DEEPEST = 8
"""Aliases on one way. Longer ones, and cycles, are refused before they come into force."""
CANARY = "canary"

Find = Callable[[str], Alias | None]
"""An alias by its name; None: that is a model's, or nobody's."""


class Endless(Exception):
    """Aliases that lead to themselves; the message names the way."""


def resolve(name: str, find: Find, facts: Facts, seed: int | None = None) -> Resolution | None:
    """None: `name` is no alias. Endless when it leads nowhere. `seed`: of the first step, where it is known."""
    alias = find(name)
    if alias is None:
        return None
    first = facts.seed(alias.sticky) if seed is None else seed
    steps: list[Step] = []
    shadow, copies, drawn, sticky = "", 0, first, alias.sticky
    while alias is not None:
        if len(steps) == DEEPEST:
            raise Endless(" -> ".join([*(step.alias for step in steps), alias.name]))
        if alias.sticky != sticky:
            drawn, sticky = facts.seed(alias.sticky), alias.sticky
        rule, to, place = _taken(alias, facts, drawn)
        steps.append(Step(alias.name, alias.version, rule, place, to))
        if not shadow and alias.shadow is not None and _copied(alias, facts, alias.shadow.parts):
            shadow, copies = alias.shadow.to, alias.copies
        alias = find(to)
    return Resolution(steps[-1].to, tuple(steps), first, shadow, copies)


def _taken(alias: Alias, facts: Facts, seed: int) -> tuple[str, str, int]:
    """The rule, to whom, and the bucket of the canary."""
    place = bucket(seed, alias.name, PARTS)
    for rule in alias.rules:
        if rule.when.holds(facts):
            return rule.name, chosen(seed, alias.name, rule.to), place
    if alias.canary is not None and place < alias.canary.parts:
        return CANARY, alias.canary.to, place
    return "", chosen(seed, alias.name, alias.to), place


def _copied(alias: Alias, facts: Facts, parts: int) -> bool:
    """Any request may be, whoever sends it."""
    return bucket(facts.seed(REQUEST), f"{alias.name}\nshadow", PARTS) < parts


def cycle(aliases: Mapping[str, Alias]) -> list[str] | None:
    """A way that leads back to where it began, or is longer than DEEPEST; None: there is none."""
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> list[str] | None:
        if name in way:
            return [*way[way.index(name) :], name]
        if name not in aliases or name in done:
            return None
        for each in aliases[name].names():
            if found := walk(each, (*way, name)):
                return found
        done.add(name)
        return None

    for name in aliases:
        if (found := walk(name, ())) is not None:
            return found
    return _longest(aliases)


def _longest(aliases: Mapping[str, Alias]) -> list[str] | None:
    """Without cycles. A way of more than DEEPEST aliases."""
    ways: dict[str, list[str]] = {}

    def way(name: str) -> list[str]:
        if name not in ways:
            alias = aliases.get(name)
            below = [] if alias is None else max((way(each) for each in alias.names()), key=len, default=[])
            ways[name] = [] if alias is None else [name, *below]
        return ways[name]

    return next((found for name in aliases if len(found := way(name)) > DEEPEST), None)


def models(name: str, find: Find) -> list[str]:
    """Every name that is no alias and may answer for this one; copies are not counted."""
    found: dict[str, None] = {}
    seen: set[str] = set()

    def walk(name: str) -> None:
        if name in seen:
            return
        seen.add(name)
        if (alias := find(name)) is None:
            found[name] = None
            return
        for each in answering(alias):
            walk(each)

    walk(name)
    return list(found)


def answering(alias: Alias) -> Iterable[str]:
    """Whom it may send a request to, in the order in which they are written."""
    yield from (name for name, weight in alias.to.items() if weight)
    for rule in alias.rules:
        yield from (name for name, weight in rule.to.items() if weight)
    if alias.canary is not None and alias.canary.parts:
        yield alias.canary.to
