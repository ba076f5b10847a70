"""Whether this installation can keep a residency policy: all that is told of requests, and somebody who may answer.
Pure."""

from collections.abc import Iterable, Mapping, Sequence

from tokenworks.config.records import Stated
from tokenworks.snapshot.records import ResidencyRecord, SinkRecord
from tokenworks.snapshot.residency import OWN, PAYMENTS, WEBHOOKS, Labels, breach, broken, told


def sinks(installation: Stated, stated: Mapping[str, Stated], *, payments: bool) -> dict[str, SinkRecord]:
    """All that keep something for this installation or are told something by it, by name.

    Its own are where it is unless the file says otherwise, and keep what they have until it is deleted; of others
    nothing is known but what the file says. `payments`: there is a payment provider."""
    others = (WEBHOOKS, *([PAYMENTS] if payments else []))
    names = dict.fromkeys((*OWN, *others, *stated))
    return {name: _sink(name, installation if name in OWN else Stated(), stated.get(name, Stated())) for name in names}


def _sink(name: str, around: Stated, stated: Stated) -> SinkRecord:
    where = placed(stated, around)
    trains = around.trains if stated.trains is None else stated.trains
    return SinkRecord(name, where.region, where.jurisdiction, stated.retention, trains)


def placed(stated: Labels, around: Labels) -> Labels:
    """Whose words say where it is: its own, or those of what it is part of. Never half and half: of what is in another
    region, the jurisdiction is not known either."""
    return stated if stated.region or stated.jurisdiction else around


def misplaced(policies: Sequence[ResidencyRecord], known: Mapping[str, SinkRecord]) -> str | None:
    """Why somebody who is told of every request is where a policy's requests may not be."""
    return broken(policies, told(known), content=False)


def unanswerable(policies: Sequence[ResidencyRecord], targets: Iterable[tuple[str, Labels]]) -> str | None:
    """Why none of the named targets may answer; None: one may."""
    reasons: dict[str, None] = {}
    for name, labels in targets:
        reason = breach(policies, labels)
        if reason is None:
            return None
        reasons[f"{name} {reason}"] = None
    return "; ".join(reasons) or "there is no target at all"
