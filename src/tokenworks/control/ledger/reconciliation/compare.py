"""Drift by day, model and key, and the requests behind it.

A provider's export names no requests, so those are ours that it may see otherwise: one that is exactly the drift, all
where the export has no bucket for them, and else those that did not end as usual.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from tokenworks.control.ledger.reconciliation.exports import MEASURES, Export
from tokenworks.control.storage.reconciliation import Own

MOST_REQUESTS = 100
_DATED = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8})$")
_DAY = 86400
_EPOCH = date(1970, 1, 1)

Bucket = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A request of ours, and why it may be counted otherwise."""

    attempt: Own
    why: str


@dataclass(slots=True)
class Row:
    """`theirs` has only what the export tells; `ours` the same measures."""

    day: str
    model: str
    key: str
    ours: dict[str, int]
    theirs: dict[str, int]
    suspects: list[Suspect] = field(default_factory=list)
    more_suspects: int = 0

    @property
    def drift(self) -> dict[str, int]:
        """Theirs less ours."""
        return {name: self.theirs[name] - self.ours[name] for name in self.theirs}

    def exceeds(self, tolerance: float) -> bool:
        """`tolerance`: the share of the larger of both that may be missing."""
        return any(
            abs(drift) > tolerance * max(self.theirs[name], self.ours[name]) for name, drift in self.drift.items()
        )


def family(model: str) -> str:
    """Providers report dated versions of what was asked for by its plain name."""
    return _DATED.sub("", model)


def compare(export: Export, own: Iterable[Own], keys: Mapping[str, str], tolerance: float) -> list[Row]:
    """`keys`: our upstream for each of the provider's key ids; without it, keys are not told apart."""
    theirs: defaultdict[Bucket, dict[str, int]] = defaultdict(dict)
    told = [name for name in MEASURES if any(name in row.measures for row in export.rows)]
    for row in export.rows:
        bucket = theirs[row.day, family(row.model), keys.get(row.key, row.key) if keys else ""]
        for name, value in row.measures.items():
            bucket[name] = bucket.get(name, 0) + value
    ours: defaultdict[Bucket, list[Own]] = defaultdict(list)
    for attempt in own:
        ours[day_of(attempt.opened), family(attempt.model), attempt.upstream if keys else ""].append(attempt)
    rows = []
    for bucket_id in sorted(theirs.keys() | {each for each in ours if each[0] in export.days}):
        attempts = ours.get(bucket_id, [])
        measures = theirs.get(bucket_id) or dict.fromkeys(told, 0)
        sums = {name: sum(each.measures[name] for each in attempts) for name in measures}
        made = Row(*bucket_id, ours=sums, theirs=measures)
        if made.exceeds(tolerance):
            suspects = _suspects(made, attempts, missing=bucket_id not in theirs)
            made.suspects, made.more_suspects = suspects[:MOST_REQUESTS], max(len(suspects) - MOST_REQUESTS, 0)
        if any(sums.values()) or any(measures.values()):
            rows.append(made)
    return rows


def day_of(seconds: int) -> str:
    """In UTC."""
    return (_EPOCH + timedelta(days=seconds // _DAY)).isoformat()


def _suspects(row: Row, attempts: list[Own], *, missing: bool) -> list[Suspect]:
    if missing:
        return [Suspect(each, "the export has nothing of this model on this day") for each in attempts]
    lacking = {name: -drift for name, drift in row.drift.items()}
    exact = [each for each in attempts if {name: each.measures[name] for name in lacking} == lacking]
    if exact:
        return [Suspect(each, "it alone is exactly the drift") for each in exact]
    found = [Suspect(each, why) for each in attempts if (why := _unusual(each))]
    return sorted(found, key=lambda each: -each.attempt.measures["cost"])


def _unusual(attempt: Own) -> str:
    if attempt.outcome != "completed":
        return f"it ended otherwise: {attempt.outcome}"
    if attempt.estimated:
        return "the provider reported nothing for it, so we counted"
    if attempt.ended is not None and day_of(attempt.ended) != day_of(attempt.opened):
        return "it ran over midnight"
    return ""
