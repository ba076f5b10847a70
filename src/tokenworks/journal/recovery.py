"""What a journal's directory says at start: its sound segments, and the attempts that never ended."""

import logging
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tokenworks.journal import segment as segments
from tokenworks.journal.records import Opened, Progress, Record, Settled, UsageRecord
from tokenworks.journal.segment import Segment

Attempt = tuple[str, int]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class OpenAttempts:
    """Attempts without a `Settled`, and how far each got."""

    opened: dict[Attempt, Opened] = field(default_factory=dict)
    progress: dict[Attempt, Progress] = field(default_factory=dict)

    def note(self, record: Record) -> None:
        attempt = (record.request_id, record.attempt)
        if isinstance(record, Opened):
            self.opened[attempt] = record
        elif isinstance(record, Progress):
            if attempt in self.opened:
                self.progress[attempt] = record
        else:
            self.opened.pop(attempt, None)
            self.progress.pop(attempt, None)

    def records(self) -> list[Record]:
        """What rebuilds this, to be written at the head of a new segment so that older ones may go."""
        return [*self.opened.values(), *self.progress.values()]

    def settle_lost(self, now_ns: int) -> list[Settled]:
        """How the attempts of a gateway that died are billed: by their last progress."""
        return [_lost(attempt, self.progress.get(attempt), now_ns) for attempt in self.opened]


def _lost(attempt: Attempt, progress: Progress | None, now_ns: int) -> Settled:
    reached = progress or Progress(*attempt, UsageRecord())
    return Settled(
        *attempt,
        at=now_ns,
        outcome="lost",
        usage=reached.usage,
        charge=reached.charge,
        status=500,
        error="the gateway stopped before the attempt ended",
        estimated=progress is not None,
        cost=reached.cost,
        price=reached.price,
        cost_price=reached.cost_price,
    )


def recover(directory: Path) -> tuple[list[Segment], OpenAttempts]:
    """Segments with records, in order, each up to its torn tail; what cannot be read is set aside and reported."""
    attempts = OpenAttempts()
    found: list[Segment] = []
    for path in sorted(directory.glob(f"*{segments.SUFFIX}")):
        segment = segments.load(path, attempts.note)
        if segment is not None and segment.end > segment.first:
            found.append(segment)
        elif path.stat().st_size <= segments.HEADER_BYTES:
            path.unlink()
        else:
            segments.set_aside(path)
    for before, after in pairwise(found):
        if before.end < after.first:
            log.error("journal records %d to %d are lost: %s is damaged", before.end, after.first - 1, before.path)
    return found, attempts
