"""Whether this installation can keep a residency policy: its own stores, and somebody who may answer. Pure."""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from tokenworks.config.records import Installation
from tokenworks.snapshot.records import ResidencyRecord
from tokenworks.snapshot.residency import Labels, breach


def misplaced(policies: Iterable[ResidencyRecord], installation: Installation) -> str | None:
    """Why the installation itself is where a policy's requests may not be."""
    places = [replace(policy, retention=None, no_training=False) for policy in policies]
    return breach(places, installation)


def unstorable(policy: ResidencyRecord, installation: Installation) -> str:
    """Why nothing of a policy's requests may be stored here; "": it may. What is stored is kept until it is deleted."""
    if reason := breach([replace(policy, retention=None)], installation):
        return reason
    if policy.retention is not None:
        return (
            f"keeps what is stored until it is deleted, and the residency policy of {policy.id} allows "
            f"{policy.retention} s"
        )
    return ""


def unanswerable(policies: Sequence[ResidencyRecord], targets: Iterable[tuple[str, Labels]]) -> str | None:
    """Why none of the named targets may answer; None: one may."""
    reasons: dict[str, None] = {}
    for name, labels in targets:
        reason = breach(policies, labels)
        if reason is None:
            return None
        reasons[f"{name} {reason}"] = None
    return "; ".join(reasons) or "there is no target at all"
