"""What a version of an alias would do: for one request, for many like it, and for those that came lately. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row

from tokenworks.core.aliases.records import KEY, ORGANIZATION, PROJECT, REQUEST, Alias, Facts, Resolution
from tokenworks.core.aliases.resolving import Find, resolve
from tokenworks.core.caller import Caller
from tokenworks.core.usage import KINDS, Usage
from tokenworks.snapshot.residency import breach
from tokenworks.snapshot.state import State

SESSIONS = 10_000
"""Conversations that are made up to see how a version divides them."""
USUAL_OUTPUT = 200
"""Tokens of an answer of which nothing is known."""
_KNOWN = frozenset({KEY, PROJECT, ORGANIZATION, REQUEST})
"""What usage keeps of what keeps requests together; of the others it has a hash."""


@dataclass(frozen=True, slots=True)
class World:
    """All there is, once with the alias as it is and once as it would be. `now` Unix seconds."""

    state: State
    aliases: Mapping[str, Alias]
    now: int

    def find(self, name: str) -> Alias | None:
        return self.aliases.get(name)


@dataclass(frozen=True, slots=True)
class Fate:
    """Of one request. `refused`: why nobody would answer it, as far as that can be told without asking; None: it would
    be answered. `price`: nano-dollars, None where nobody has set one."""

    model: str
    resolution: Resolution | None
    refused: str | None
    price: int | None


@dataclass(slots=True)
class Division:
    """Of requests that came lately."""

    requests: Counter[str]
    refused: Counter[tuple[str, str]]
    price: int = 0


@dataclass(frozen=True, slots=True)
class Replay:
    """`moves` by the models from and to. `guessed`: of these, usage does not keep what the choice depends on."""

    before: Division
    after: Division
    moves: Counter[tuple[str, str]]
    guessed: int


def fate(
    world: World, name: str, facts: Facts, caller: Caller, usage: Usage, tier: str = "", seed: int | None = None
) -> Fate:
    found = resolve(name, world.find, facts, seed)
    model = found.model if found is not None else name
    price = _price(world, name, model, caller, usage, tier)
    refused = _refused(world.state, model, facts, caller)
    if caller.models is not None and name not in caller.models:
        refused = f"the key may not use {name}"
    if refused is None and price is None:
        refused = f"{model} has no price"
    return Fate(model, found, refused, price)


def shares(world: World, name: str, facts: Facts) -> dict[str, float]:
    """By model: the share of conversations like this one, which differ in nothing but whose they are."""
    counted = Counter(
        _model(name, resolve(name, world.find, replace(facts, key_id=text, user=text, session=text, request_id=text)))
        for text in map(str, range(SESSIONS))
    )
    return {model: number / SESSIONS for model, number in counted.most_common()}


def replay(before: World, after: World, name: str, rows: Iterable[Row[Any]], stickies: Mapping[int, str]) -> Replay:
    """`stickies`: by version of the alias, what kept requests together in it."""
    told = Replay(Division(Counter(), Counter()), Division(Counter(), Counter()), Counter(), 0)
    guessed = 0
    for row in rows:
        facts, caller = _asked(row)
        usage = Usage(*(getattr(row, kind) for kind in KINDS))
        models = []
        unsure = False
        for world, division in ((before, told.before), (after, told.after)):
            seed, known = _seed(world.find, name, row, facts, stickies)
            result = fate(world, name, facts, caller, usage, row.tier, seed)
            division.requests[result.model] += 1
            division.price += result.price or 0
            if result.refused is not None:
                division.refused[result.model, result.refused] += 1
            models.append(result.model)
            unsure |= not known or _looks_closer(world.find, result.resolution)
        guessed += unsure
        if models[0] != models[1]:
            told.moves[models[0], models[1]] += 1
    return replace(told, guessed=guessed)


def _asked(row: Row[Any]) -> tuple[Facts, Caller]:
    caller = Caller(row.key_id, row.project_id, row.organization_id)
    return Facts(
        key_id=row.key_id,
        project_id=row.project_id,
        organization_id=row.organization_id,
        # Whoever was kept together then is so again, in the versions that ask for something else.
        user=str(row.alias_seed or row.key_id),
        session=str(row.alias_seed or row.request_id),
        request_id=row.request_id,
        protocol=row.protocol,
        needs=frozenset({"stream"}) if row.stream else frozenset(),
        prompt_tokens=row.input + row.cached_input + row.cache_write,
        now=row.opened_ns / 1e9,
    ), caller


def _seed(find: Find, name: str, row: Row[Any], facts: Facts, stickies: Mapping[int, str]) -> tuple[int | None, bool]:
    """What the alias chooses from, and whether that is certain."""
    alias = find(name)
    if alias is None or alias.sticky in _KNOWN:
        return None, True
    if row.alias == name and stickies.get(row.alias_version) == alias.sticky:
        return row.alias_seed, True
    return None, False


def _looks_closer(find: Find, resolution: Resolution | None) -> bool:
    """Whether a rule on the way asked for what usage does not keep."""
    found = [find(step.alias) for step in resolution.steps] if resolution is not None else []
    return any(rule.when.personal for alias in found if alias is not None for rule in alias.rules)


def _model(name: str, resolution: Resolution | None) -> str:
    return resolution.model if resolution is not None else name


def _price(world: World, name: str, model: str, caller: Caller, usage: Usage, tier: str) -> int | None:
    state, owner = world.state, (caller.organization_id, caller.project_id)
    alias, record = state.aliases.get(name), state.models.get(model)
    tariff = alias.tariff(*owner) if alias is not None else None
    if tariff is None:
        tariff = record.tariff(*owner) if record is not None else None
    price = tariff.at(world.now) if tariff is not None else None
    return None if price is None else price.charge(usage, tier)


def _refused(state: State, name: str, facts: Facts, caller: Caller) -> str | None:
    model = state.models.get(name)
    if model is None:
        return "does not exist"
    lacking = facts.needs - {"stream", *model.capabilities} if model.capabilities else ()
    if lacking:
        return f"cannot do {', '.join(sorted(lacking))}"
    policies = state.policies(caller.organization_id, caller.project_id)
    reasons: dict[str, None] = {}
    for target in model.targets:
        upstream = state.upstreams[target.upstream]
        reason = breach(policies, upstream)
        if caller.regions is not None and upstream.region not in caller.regions:
            reason = f"is in {upstream.region or 'an unknown region'}, which the key does not allow"
        if reason is None and upstream.state != "ready":
            reason = f"is {upstream.state}"
        if reason is None:
            return None
        reasons[f"{upstream.provider} {reason}"] = None
    return "; ".join(reasons) or "has nobody who answers"
