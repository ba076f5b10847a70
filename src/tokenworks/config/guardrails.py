"""`[guardrails.NAME]`: checks of its values, and of what goes together."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tokenworks.config import values
from tokenworks.config.problems import choose
from tokenworks.config.records import GuardrailConfig
from tokenworks.config.values import Bad, Check
from tokenworks.redaction.entities import ENTITIES, phone_region
from tokenworks.redaction.patterns import Pattern

KINDS = ("http", "redactor")
PHASES = ("before", "after", "both")
ACTIONS = ("redact", "block", "log")
FAILURES = ("closed", "open")
LONGEST_TIMEOUT = 60.0
_OWN_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_ONLY = {
    "redactor": ("entities", "patterns", "phone_regions", "action", "restore"),
    "http": ("url", "secret", "timeout", "on_failure", "region", "jurisdiction", "retention", "trains"),
}
"""Keys that mean something to guardrails of one kind only."""


def _one_of(known: tuple[str, ...]) -> Check[str]:
    return values.one_of(frozenset(known), partial(choose, known=known))


def _entities(value: Any) -> tuple[str, ...]:
    if value == []:
        return ()
    return tuple(dict.fromkeys(_one_of(ENTITIES)(name) for name in values.names(value)))


def _regions(value: Any) -> tuple[str, ...]:
    found = values.words(value)
    for region in found:
        if not phone_region(region):
            raise Bad(f'{region!r} is no country; write ISO 3166 codes such as "US"')
    return found


def _timeout(value: Any) -> float:
    found = values.seconds(value)
    if found > LONGEST_TIMEOUT:
        raise Bad(f"{found:g} seconds is too long for every request to wait; write at most {LONGEST_TIMEOUT:g}")
    return found


def _patterns(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Bad(f"must be a table, not {values.type_name(value)}; write {{employee = 'EMP-[0-9]{{6}}'}}")
    for name, pattern in value.items():
        if not _OWN_NAME.fullmatch(name) or name in ENTITIES:
            raise Bad(f"has {name!r}, which cannot name a pattern; use up to 32 of a-z, 0-9 and _, no known entity")
        if not isinstance(pattern, str):
            raise Bad(f"has {name!r}, which is {values.type_name(pattern)}; write a regular expression in quotes")
        try:
            Pattern(pattern)
        except ValueError as error:
            raise Bad(f"has {name!r}, which {error}; correct the pattern") from None
    return dict(value)


CHECKS: dict[str, Check[Any]] = {
    "kind": _one_of(KINDS),
    "phase": _one_of(PHASES),
    "action": _one_of(ACTIONS),
    "on_failure": _one_of(FAILURES),
    "timeout": _timeout,
    "all": values.flag,
    "projects": values.words,
    "keys": values.words,
    "entities": _entities,
    "patterns": _patterns,
    "phone_regions": _regions,
    "restore": values.flag,
    "url": values.url,
    "secret": values.credential,
    "region": values.string,
    "jurisdiction": values.string,
    "retention": values.duration,
    "trains": values.flag,
}


def guardrail(
    name: str, table: Any, given: Mapping[str, Any], attached: bool, problem: Callable[[str, str], None]
) -> GuardrailConfig:
    """`given` are the valid values of `table`. `attached`: a model names it. `problem` takes a key, what is wrong."""
    kind = given.get("kind", "")
    if isinstance(table, dict) and "kind" not in table:
        problem("", f"has no 'kind'; add kind = {' or '.join(map(repr, KINDS))}")
    for other, keys in _ONLY.items():
        for key in keys:
            if kind and other != kind and key in given:
                problem(key, f"is for guardrails of kind {other!r}; remove it")
    if kind == "http" and isinstance(table, dict) and "url" not in table:
        problem("", "has no 'url'; add the address of the hook")
    found = GuardrailConfig(name, **{"entities": ENTITIES, **given})
    if kind == "redactor" and not found.entities and not found.patterns and isinstance(table, dict):
        problem("entities", "is empty and there are no patterns, so nothing would be found; name some")
    if found.restore and (found.action != "redact" or found.phase == "after"):
        problem("restore", "needs action 'redact' before the request; nothing else puts placeholders into it")
    if not (attached or found.all or found.projects or found.keys):
        remedy = f'all = true, projects = ["..."], keys = ["..."], or guardrails = [{name!r}] in a model'
        problem("", f"applies to nobody; add {remedy}")
    return found
