"""Whether labels prove what a residency policy asks for. A label that nobody stated proves nothing. Pure."""

from collections.abc import Iterable
from typing import Protocol

from tokenworks.snapshot.records import ResidencyRecord


class Labels(Protocol):
    """What an operator states of an upstream, or of this installation; see records.UpstreamRecord."""

    @property
    def region(self) -> str: ...
    @property
    def jurisdiction(self) -> str: ...
    @property
    def retention(self) -> int | None: ...
    @property
    def trains(self) -> bool | None: ...


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
