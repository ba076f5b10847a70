"""Which entries of a price file are taken, and what becomes of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tokenworks.control.pricing import price_file
from tokenworks.control.pricing.entries import Terms
from tokenworks.control.pricing.price_file import Reading
from tokenworks.core.errors import InvalidRequest
from tokenworks.snapshot.state import State


@dataclass(frozen=True, slots=True)
class PriceFile:
    """By the file's names."""

    readings: Mapping[str, Reading]
    providers: Mapping[str, str]
    modes: Mapping[str, str]


@dataclass(slots=True)
class Import:
    """What is to be set, by subject, and what is to be told; `problems` and `unknown` by the file's names."""

    terms: dict[str, Terms] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, file: PriceFile, chosen: Mapping[str, str | None]) -> "Import":
        """`chosen`: the file's name for each subject, None where it has none."""
        made = cls()
        for subject, name in chosen.items():
            reading = file.readings[name] if name is not None else Reading()
            if name is not None and reading.problem:
                made.problems[name] = reading.problem
            if name is not None and reading.unknown:
                made.unknown[name] = reading.unknown
            if reading.terms is None:
                made.missing.append(subject)
            else:
                made.terms[subject] = reading.terms
        return made


def read_all(document: Any) -> PriceFile:
    """InvalidRequest when anything in it is malformed, wherever."""
    entries = price_file.check(document)
    readings = {name: price_file.read(name, entry) for name, entry in entries.items() if name != "sample_spec"}
    providers = {name: str(entry.get("litellm_provider", "")) for name, entry in entries.items()}
    return PriceFile(readings, providers, {name: str(entry.get("mode", "")) for name, entry in entries.items()})


def matches(file: PriceFile, names: Mapping[str, str] | None, state: State) -> dict[str, str | None]:
    """Subject -> the file's name. Without `names`: every target of another provider, where both its provider and its
    model are the file's own words for them."""
    if names is not None:
        for name in names:
            if name not in file.readings:
                raise InvalidRequest(f"names: the file has no {name!r}.", param="names")
        return {subject: name for name, subject in names.items()}
    chosen: dict[str, str | None] = {}
    for model in state.models.values():
        for target in model.targets:
            upstream = state.upstreams[target.upstream]
            if not upstream.local:
                chosen[f"{upstream.provider}/{target.model}"] = _named(file, upstream.provider, target.model)
    return chosen


def _named(file: PriceFile, provider: str, model: str) -> str | None:
    whole = f"{provider}/{model}"
    if whole in file.readings:
        return whole
    return model if model in file.readings and file.providers.get(model) == provider else None
