"""What the scheduler was told and what it decided, a line of JSON each: enough to run its steps again without weights.

A trace holds the tokens of prompts and answers. tests/worker/engines/llama/scheduling/test_trace.py replays one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from tokenworks.worker.engines.llama.scheduling.prefixes import Prefixes
from tokenworks.worker.engines.llama.scheduling.scheduler import Refused, Scheduler
from tokenworks.worker.engines.llama.scheduling.sequence import Kernel, Key, Outcome, Sequence, Work

_ENCODE = msgspec.json.Encoder().encode


class Start(msgspec.Struct, tag="start", frozen=True):
    """`memory`: tokens that the cache of prefixes holds."""

    slots: int
    capacity: int
    budget: int
    queue: int
    memory: int
    public: list[int]
    cuts: bool


class Submitted(msgspec.Struct, tag="submitted", frozen=True):
    """`deadline` None: none. `refused`: the queue was full."""

    now: float
    id: int
    tokens: list[int]
    limit: int
    tenant: str
    key: Key
    priority: int
    deadline: float | None
    expected: int
    refused: bool = False


class Cancelled(msgspec.Struct, tag="cancelled", frozen=True):
    id: int


class Planned(msgspec.Struct, tag="planned", frozen=True):
    """`guesses`: drafts of running sequences before the step. `works`: (id, slot, begin, end, samples, drafts)."""

    now: float
    budget: int
    guesses: dict[int, list[int]]
    works: list[tuple[int, int, int, int, bool, list[int]]]


class Committed(msgspec.Struct, tag="committed", frozen=True):
    """`outcomes`: (id, tokens, accepted, ended)."""

    seconds: float
    outcomes: list[tuple[int, list[int], int, bool]]


Line = Start | Submitted | Cancelled | Planned | Committed


class TracedScheduler(Scheduler):
    """Writes to `file` what happens. `token_bytes`: of the keys and values of one token."""

    def __init__(self, kernel: Kernel, prefixes: Prefixes, file: BinaryIO, token_bytes: int, **more: Any) -> None:
        super().__init__(kernel, prefixes, **more)
        self._file = file
        self._ids: dict[Sequence, int] = {}
        self._count = 0
        self._planning = False
        memory = prefixes.memory // max(1, token_bytes)
        self._write(
            Start(kernel.slots, kernel.capacity, self.budget, self._queue, memory, list(prefixes.public), kernel.cuts)
        )

    def submit(self, sequence: Sequence, now: float) -> None:
        self._count += 1
        deadline = sequence.deadline if sequence.deadline < float("inf") else None
        who = (sequence.tenant, sequence.key, sequence.priority, deadline, sequence.expected)
        line = Submitted(now, self._count, list(sequence.tokens), sequence.limit, *who)
        try:
            super().submit(sequence, now)
        except Refused:
            self._write(msgspec.structs.replace(line, refused=True))
            raise
        self._ids[sequence] = self._count
        self._write(line)

    def cancel(self, sequence: Sequence) -> None:
        if not self._planning and (known := self._ids.pop(sequence, None)) is not None:
            self._write(Cancelled(known))
        super().cancel(sequence)

    def plan(self, now: float) -> list[Work]:
        guesses = {self._ids[sequence]: list(sequence.drafts) for sequence in self.running if sequence.drafts}
        self._planning = True
        works = super().plan(now)
        self._planning = False
        for sequence in self.overdue:
            self._ids.pop(sequence, None)
        did = [
            (self._ids[work.sequence], work.sequence.slot, work.begin, work.end, work.samples, list(work.drafts))
            for work in works
        ]
        self._write(Planned(now, self.budget, guesses, did))
        return works

    def commit(self, outcomes: list[Outcome], seconds: float, tell: Callable[[], None] = lambda: None) -> None:
        did = [
            (self._ids[one.work.sequence], one.tokens, one.accepted, one.ended)
            for one in outcomes
            if one.work.sequence in self._ids
        ]
        super().commit(outcomes, seconds, tell)
        self._write(Committed(seconds, did))
        for outcome in outcomes:
            if outcome.ended:
                self._ids.pop(outcome.work.sequence, None)

    def _write(self, line: Line) -> None:
        self._file.write(_ENCODE(line) + b"\n")
        if not self.running:
            self._file.flush()


def lines(file: Path) -> list[Line]:
    """A last line that was cut by the end of its process is left out."""
    decoder = msgspec.json.Decoder(Line)
    with file.open("rb") as opened:
        return [decoder.decode(line) for line in opened if line.endswith(b"\n")]
