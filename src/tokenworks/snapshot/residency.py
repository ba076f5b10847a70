"""Whether labels prove what a residency policy asks for. A label that nobody stated proves nothing. Pure.

Whatever gets a request, or is told of one, is a place: a name for people, and labels. Everything that is new and gets
one is one more place in the list that `broken` is given.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec.structs import replace

from tokenworks.snapshot.records import ResidencyRecord, SinkRecord

DATABASE, OBJECTS, JOURNAL, LOGS, LIMITS, CACHE = "database", "objects", "journal", "logs", "limits", "cache"
PAYMENTS, WEBHOOKS = "payments", "webhooks"
OWN = (DATABASE, OBJECTS, JOURNAL, LOGS, LIMITS, CACHE)
"""Sinks that every installation has, and that are where it is as long as nobody states another place."""
CONTENT = frozenset({OBJECTS, CACHE, WEBHOOKS})
"""Hold what was asked and answered, and only of requests that store, cache or send it. Every other sink is told of each
request: who asked, when, which model and how much, never what."""


class Labels(Protocol):
    """What an operator states of a place; see records.UpstreamRecord."""

    @property
    def region(self) -> str: ...
    @property
    def jurisdiction(self) -> str: ...
    @property
    def retention(self) -> int | None: ...
    @property
    def trains(self) -> bool | None: ...


Place = tuple[str, Labels]


def broken(policies: Iterable[ResidencyRecord], places: Iterable[Place], *, content: bool = True) -> str | None:
    """The first of the places that does not prove the policies, and why, for people; None: all of them do.

    `content` False: they learn that there was a request and not what it says, so that it only matters where they are.
    """
    if not content:
        policies = [replace(policy, retention=None, no_training=False) for policy in policies]
    for name, labels in places:
        if reason := breach(policies, labels):
            return f"{name} {reason}"
    return None


def told(sinks: Mapping[str, SinkRecord]) -> list[Place]:
    """Those that are told of each request. That control keeps its database, and that gateways write journals and logs,
    is certain; who is not in the snapshot has no labels."""
    found = {name: sinks.get(name, SinkRecord(name)) for name in (DATABASE, JOURNAL, LOGS)}
    found |= {name: sink for name, sink in sinks.items() if name not in CONTENT}
    return [place(sink) for sink in found.values()]


def holding(sinks: Mapping[str, SinkRecord], *names: str) -> list[Place]:
    """The places of sinks that would hold what is asked or answered."""
    return [place(sinks.get(name, SinkRecord(name))) for name in names]


def place(sink: SinkRecord) -> Place:
    return f"the sink '{sink.name}'", sink


def breach(policies: Iterable[ResidencyRecord], labels: Labels) -> str | None:
    """The first thing that is not proven, for people; None: all of it is."""
    for policy in policies:
        owner = f"the residency policy of {policy.id}"
        if policy.regions is not None and labels.region not in policy.regions:
            return f"is in {labels.region or 'an unknown region'}, and {owner} allows {', '.join(policy.regions)}"
        if policy.jurisdictions is not None and labels.jurisdiction not in policy.jurisdictions:
            found = labels.jurisdiction or "an unknown jurisdiction"
            return f"is under {found}, and {owner} allows {', '.join(policy.jurisdictions)}"
        if policy.retention is not None and (labels.retention is None or labels.retention > policy.retention):
            kept = "for a time that nobody states" if labels.retention is None else f"for {labels.retention} s"
            return f"keeps data {kept}, and {owner} allows {policy.retention} s"
        if policy.no_training and labels.trains is not False:
            trains = "may learn from what it gets" if labels.trains else "is not known not to learn from what it gets"
            return f"{trains}, and {owner} forbids it"
    return None


def evidence(policies: Iterable[ResidencyRecord], labels: Labels) -> str:
    """Which policies the labels prove, and the labels that do, in one line of printable ASCII."""
    lines = []
    for policy in policies:
        proven = [
            *([f"region={labels.region}"] if policy.regions is not None else []),
            *([f"jurisdiction={labels.jurisdiction}"] if policy.jurisdictions is not None else []),
            *([f"retention={labels.retention}"] if policy.retention is not None else []),
            *(["trains=false"] if policy.no_training else []),
        ]
        lines.append(f"{policy.id}: {', '.join(proven)}")
    return "; ".join(lines).encode("ascii", "replace").decode()
