"""An alias, and what of a request it looks at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tokenworks.core.aliases.hashing import point

KEY, PROJECT, ORGANIZATION, USER, SESSION, REQUEST = "key", "project", "organization", "user", "session", "request"
STICKY = (KEY, PROJECT, ORGANIZATION, USER, SESSION, REQUEST)
METADATA = "metadata."
"""Before the name of a member of the metadata, which may keep requests together, too."""
PARTS = 1_000_000
"""Buckets that percentages are counted in."""


@dataclass(slots=True)
class Facts:
    """Of one request, made for each that names an alias. `metadata` is what its caller says of it, `needs` what it
    takes to answer it, `session` what tells one conversation from another, `now` Unix seconds."""

    key_id: str = ""
    project_id: str = ""
    organization_id: str = ""
    user: str = ""
    session: str = ""
    request_id: str = ""
    protocol: str = ""
    needs: frozenset[str] = frozenset()
    prompt_tokens: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    now: float = 0.0

    def seed(self, sticky: str) -> int:
        """The same number for all that stays together: nobody's user or session is another project's."""
        if sticky == ORGANIZATION:
            return point(self.organization_id)
        return point(f"{self.project_id}\n{self._kept(sticky)}")

    def _kept(self, sticky: str) -> str:
        """What was not said is taken for the next larger thing: a user's key, a request's session."""
        if sticky == SESSION:
            return self.session or self.request_id
        if sticky == KEY:
            return self.key_id
        if sticky == USER:
            return self.user or self.key_id
        if sticky == REQUEST:
            return self.request_id
        if sticky.startswith(METADATA):
            return self.metadata.get(sticky.removeprefix(METADATA)) or self.session or self.request_id
        return ""


@dataclass(frozen=True, slots=True)
class Match:
    """A text that is one of `values` or begins with one of `prefixes`."""

    values: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    def takes(self, text: str | None) -> bool:
        return text is not None and (text in self.values or text.startswith(self.prefixes))


@dataclass(frozen=True, slots=True)
class When:
    """Holds when all that is stated does. `above` and `below` bound the tokens of the prompt, both without the bound.

    `hours` are minutes of the day in UTC, from and until; they may pass midnight. `days` are 0 for Monday to 6.
    """

    key: Match | None = None
    project: Match | None = None
    organization: Match | None = None
    user: Match | None = None
    protocol: Match | None = None
    metadata: Mapping[str, Match] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    above: int | None = None
    below: int | None = None
    hours: tuple[int, int] | None = None
    days: frozenset[int] | None = None

    @property
    def personal(self) -> bool:
        """Whether it looks at what is not kept of a request: its metadata, its user, what it needs."""
        return bool(self.metadata or self.user or self.needs)

    def holds(self, facts: Facts) -> bool:
        return (
            (self.key is None or self.key.takes(facts.key_id))
            and (self.project is None or self.project.takes(facts.project_id))
            and (self.organization is None or self.organization.takes(facts.organization_id))
            and (self.user is None or self.user.takes(facts.user or None))
            and (self.protocol is None or self.protocol.takes(facts.protocol))
            and self.needs <= facts.needs
            and (self.above is None or facts.prompt_tokens > self.above)
            and (self.below is None or facts.prompt_tokens < self.below)
            and all(match.takes(facts.metadata.get(name)) for name, match in self.metadata.items())
            and (self.hours is None or _within(self.hours, int(facts.now) // 60 % 1440))
            and (self.days is None or (int(facts.now) // 86_400 + 3) % 7 in self.days)  # 1970 began on a Thursday
        )


def _within(hours: tuple[int, int], minute: int) -> bool:
    start, end = hours
    return start <= minute < end if start < end else minute >= start or minute < end


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    when: When
    to: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Share:
    """So many of PARTS go to `to`."""

    to: str
    parts: int


@dataclass(frozen=True, slots=True)
class Alias:
    """The first of `rules` that holds says where a request goes; else the canary takes its share of what is left, and
    `to` the rest. Weights by name. `shadow`: who gets a copy, of which nobody sees the answer; `copies` of them run at
    once in each gateway."""

    name: str
    to: Mapping[str, int]
    sticky: str = SESSION
    rules: tuple[Rule, ...] = ()
    canary: Share | None = None
    shadow: Share | None = None
    copies: int = 8
    version: int = 0

    def names(self) -> list[str]:
        """Everybody it stands for, copies included, in the order in which they are written."""
        found = dict.fromkeys(self.to)
        found |= dict.fromkeys(name for rule in self.rules for name in rule.to)
        found |= dict.fromkeys(share.to for share in (self.canary, self.shadow) if share is not None)
        return list(found)


class Step(NamedTuple):
    """One alias on the way: which rule took the request ("canary", "" for none), in which bucket it lies."""

    alias: str
    version: int
    rule: str
    bucket: int
    to: str


class Resolution(NamedTuple):
    """`model` answers the request that named the first step's alias; `shadow` gets a copy, "": nobody does. `seed` is
    that of the first step, from which alone its choice can be made again."""

    model: str
    steps: tuple[Step, ...]
    seed: int
    shadow: str = ""
    copies: int = 0

    @property
    def alias(self) -> str:
        return self.steps[0].alias

    @property
    def version(self) -> int:
        return self.steps[0].version
