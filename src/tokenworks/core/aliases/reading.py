"""A table, as a configuration file or a JSON body holds it -> `Alias`; everything that is wrong with it at once."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tokenworks.core.aliases.records import METADATA, PARTS, SESSION, STICKY, Alias, Match, Rule, Share, When

T = TypeVar("T")
Path = tuple[str | int, ...]

MOST_NAMES, MOST_RULES, MOST_CONDITIONS, MOST_VALUES = 50, 100, 20, 1_000
LONGEST = 256
MOST_WEIGHT = 1_000_000
MOST_COPIES = 1_000
NEEDS = ("tools", "vision", "json_schema", "reasoning", "embeddings", "rerank", "stream")
"""What a rule can ask whether a request needs it."""
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")
VERBS = frozenset({"versions", "rollback", "try"})
"""What the admin API has after a name."""
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_KINDS = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "an array", dict: "a table"}


class Unreadable(Exception):
    """`problems`: where, as a path of keys and indexes, and what is wrong there with its remedy."""

    def __init__(self, problems: list[tuple[Path, str]]) -> None:
        super().__init__("; ".join(f"{dotted(path)} {message}".strip() for path, message in problems))
        self.problems = problems


class _Wrong(Exception):
    pass


def dotted(path: Path) -> str:
    """rules[0].when.metadata"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(name: str, table: Any, version: int = 0) -> Alias:
    """Unreadable tells all that is wrong."""
    reader = _Reader()
    alias = reader.alias(name, table, version)
    if reader.problems:
        raise Unreadable(reader.problems)
    return alias


class _Reader:
    def __init__(self) -> None:
        self.problems: list[tuple[Path, str]] = []

    def alias(self, name: str, table: Any, version: int) -> Alias:
        path: Path = ()
        if not NAME.fullmatch(name) or len(name) > LONGEST or VERBS & set(name.split("/")):
            wrong = "is no name for an alias: use letters, digits, '.', '_', '-' and '/'"
            self.problems.append((path, f"{name!r} {wrong}, and none of {', '.join(sorted(VERBS))} between slashes"))
        given = self._table(path, table, ("to", "sticky", "rules", "canary", "shadow"))
        if isinstance(table, dict) and "to" not in table:
            self.problems.append((path, 'has no "to"; name the model that answers, or several with weights'))
        shadow = given.get("shadow")
        return Alias(
            name=name,
            to=self._at(("to",), _weights, given["to"], {}) if "to" in given else {},
            sticky=self._at(("sticky",), _sticky, given["sticky"], SESSION) if "sticky" in given else SESSION,
            rules=self._rules(given["rules"]) if "rules" in given else (),
            canary=self._share(("canary",), given["canary"], ("to", "percent")) if "canary" in given else None,
            shadow=self._share(("shadow",), shadow, ("to", "percent", "copies")) if "shadow" in given else None,
            copies=self._at(("shadow", "copies"), _copies, shadow["copies"], 8)
            if isinstance(shadow, dict) and "copies" in shadow
            else 8,
            version=version,
        )

    def _rules(self, value: Any) -> tuple[Rule, ...]:
        if not isinstance(value, list) or len(value) > MOST_RULES:
            self.problems.append((("rules",), f"must be an array of at most {MOST_RULES} rules"))
            return ()
        rules = [self._rule(("rules", index), each, index) for index, each in enumerate(value)]
        for index, rule in enumerate(rules):
            if rule.name in [earlier.name for earlier in rules[:index]]:
                self.problems.append((("rules", index, "name"), f"{rule.name!r} is the name of an earlier rule, too"))
        return tuple(rules)

    def _rule(self, path: Path, table: Any, index: int) -> Rule:
        given = self._table(path, table, ("name", "when", "to"))
        name = self._at((*path, "name"), _rule_name, given["name"], "") if "name" in given else f"rule {index + 1}"
        for key in ("when", "to"):
            if isinstance(table, dict) and key not in table:
                self.problems.append((path, f"has no {key!r}; a rule says when it holds, and who answers then"))
        when = self._when((*path, "when"), given["when"]) if "when" in given else When()
        return Rule(name, when, self._at((*path, "to"), _weights, given["to"], {}) if "to" in given else {})

    def _when(self, path: Path, table: Any) -> When:
        given = self._table(path, table, (*_CONDITIONS, "metadata", "prompt_tokens"))
        if isinstance(table, dict) and not table:
            self.problems.append((path, "states no condition; what holds always is the alias's own 'to'"))
        found = {
            key: self._at((*path, key), check, given[key], None) for key, check in _CONDITIONS.items() if key in given
        }
        found = {key: value for key, value in found.items() if value is not None}
        if "metadata" in given:
            found["metadata"] = self._metadata((*path, "metadata"), given["metadata"])
        if "prompt_tokens" in given:
            bounds = self._table((*path, "prompt_tokens"), given["prompt_tokens"], ("above", "below"))
            for key, each in bounds.items():
                found[key] = self._at((*path, "prompt_tokens", key), _tokens, each, None)
        return When(**found)

    def _metadata(self, path: Path, members: Any) -> dict[str, Match]:
        if not isinstance(members, dict) or not 0 < len(members) <= MOST_CONDITIONS:
            wrong = f'must be a table of 1 to {MOST_CONDITIONS} members; write {{tier = "gold"}}'
            self.problems.append((path, wrong))
            return {}
        return {key: self._at((*path, key), _match, each, Match()) for key, each in members.items()}

    def _share(self, path: Path, table: Any, known: tuple[str, ...]) -> Share | None:
        given = self._table(path, table, known)
        for key in ("to", "percent"):
            if isinstance(table, dict) and key not in table:
                self.problems.append((path, f"has no {key!r}; add it"))
        if not {"to", "percent"} <= given.keys():
            return None
        to = self._at((*path, "to"), _name, given["to"], "")
        return Share(to, self._at((*path, "percent"), _percent, given["percent"], 0))

    def _table(self, path: Path, table: Any, known: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(table, dict):
            self.problems.append((path, f"must be a table, not {_kind(table)}"))
            return {}
        for key in table:
            if key not in known:
                self.problems.append(((*path, key), f"is unknown; known: {', '.join(known)}"))
        return {key: value for key, value in table.items() if key in known}

    def _at(self, path: Path, check: Callable[[Any], T], value: Any, otherwise: T) -> T:
        try:
            return check(value)
        except _Wrong as wrong:
            self.problems.append((path, str(wrong)))
            return otherwise


def _kind(value: Any) -> str:
    return next((name for kind, name in _KINDS.items() if isinstance(value, kind)), "nothing")


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value or len(value) > LONGEST or not value.isprintable() or " " in value:
        raise _Wrong("must be the name of a model or an alias")
    return value


def _rule_name(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 100 or not value.isprintable():
        raise _Wrong("must be a name of up to 100 characters")
    return value


def _weights(value: Any) -> dict[str, int]:
    """A name, or names with whole numbers."""
    if isinstance(value, str):
        return {_name(value): 1}
    if not isinstance(value, dict) or not 0 < len(value) <= MOST_NAMES:
        raise _Wrong(
            f'must be a name, or up to {MOST_NAMES} names with weights; write "fast" or {{fast = 9, slow = 1}}'
        )
    for name, weight in value.items():
        _name(name)
        if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= MOST_WEIGHT:
            raise _Wrong(f"gives {name!r} no weight; that is a whole number from 0 to {MOST_WEIGHT}")
    if not any(value.values()):
        raise _Wrong("has no weight above 0, so nobody would answer")
    return dict(value)


def _sticky(value: Any) -> str:
    if isinstance(value, str) and (value in STICKY or (len(value) > len(METADATA) and value.startswith(METADATA))):
        return value
    raise _Wrong(f"must be one of {', '.join(STICKY)}, or {METADATA}NAME")


def _percent(value: Any) -> int:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not 0 <= value <= 100
    ):
        raise _Wrong("must be a percentage from 0 to 100")
    parts = round(value * (PARTS // 100))
    if not math.isclose(parts, value * (PARTS // 100)):
        raise _Wrong("has more than four decimal places")
    return parts


def _copies(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MOST_COPIES:
        raise _Wrong(f"must be a whole number from 1 to {MOST_COPIES}: how many run at once in each gateway")
    return value


def _tokens(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _Wrong("must be a whole number of tokens")
    return value


def _texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not 0 < len(texts) <= MOST_VALUES:
        raise _Wrong('must be a text or an array of texts; write "gold" or ["gold", "silver"]')
    for text in texts:
        if not isinstance(text, str) or not text or len(text) > 512:
            raise _Wrong("must hold texts of 1 to 512 characters")
    return texts


def _match(value: Any) -> Match:
    """A text, one of several, or {prefix = ...}."""
    if isinstance(value, dict):
        if value.keys() != {"prefix"}:
            raise _Wrong('must be a text, an array of texts, or {prefix = "..."}')
        return Match(prefixes=tuple(_texts(value["prefix"])))
    return Match(frozenset(_texts(value)))


def _among(known: tuple[str, ...]) -> Callable[[Any], frozenset[str]]:
    def check(value: Any) -> frozenset[str]:
        texts = _texts(value)
        if unknown := [text for text in texts if text not in known]:
            raise _Wrong(f"names {unknown[0]!r}; known: {', '.join(known)}")
        return frozenset(texts)

    return check


def _days(value: Any) -> frozenset[int]:
    return frozenset(DAYS.index(day) for day in _among(DAYS)(value))


def _hours(value: Any) -> tuple[int, int]:
    found = _HOURS.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _Wrong('must be hours of the day in UTC; write "22:00-06:00"')
    start, end = int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])
    if start == end:
        raise _Wrong("begins when it ends; leave it out for the whole day")
    return start, end


_CONDITIONS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("key", "project", "organization", "user", "protocol"), _match),
    "needs": _among(NEEDS),
    "hours": _hours,
    "days": _days,
}
