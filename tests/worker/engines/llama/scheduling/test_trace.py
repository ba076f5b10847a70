"""Steps of the real engine, run again without weights: the scheduler decides the same from the same."""

import asyncio
from math import inf
from pathlib import Path
from typing import Any

from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.llama.options import MEBIBYTE
from tokenworks.worker.engines.llama.scheduling.prefixes import Prefixes
from tokenworks.worker.engines.llama.scheduling.scheduler import Refused, Scheduler
from tokenworks.worker.engines.llama.scheduling.sequence import Outcome, Sequence, Work
from tokenworks.worker.engines.llama.scheduling.trace import (
    Cancelled,
    Committed,
    Line,
    Planned,
    Start,
    Submitted,
    lines,
)


class Replay:
    def __init__(self, start: Line, kernel: Any) -> None:
        assert isinstance(start, Start)
        self.kernel = kernel(start.slots, start.capacity)
        self.kernel.cuts = start.cuts
        self.public = len(start.public)
        prefixes = Prefixes(start.memory, start.public)
        self.scheduler = Scheduler(self.kernel, prefixes, budget=start.budget, queue=start.queue)
        self.sequences: dict[int, Sequence] = {}
        self.works: dict[int, Work] = {}
        self.ids: dict[Sequence, int] = {}

    def do(self, line: Line) -> None:
        match line:
            case Submitted():
                deadline = inf if line.deadline is None else line.deadline
                more = {"tenant": line.tenant, "key": line.key, "priority": line.priority, "expected": line.expected}
                sequence = Sequence(list(line.tokens), line.limit, deadline=deadline, **more)  # type: ignore[arg-type]
                try:
                    self.scheduler.submit(sequence, line.now)
                    assert not line.refused
                except Refused:
                    assert line.refused
                self.sequences[line.id] = sequence
                self.ids[sequence] = line.id
            case Cancelled():
                self.scheduler.cancel(self.sequences[line.id])
            case Planned():
                self.scheduler.budget = line.budget
                for number, drafts in line.guesses.items():
                    self.sequences[number].drafts = list(drafts)
                works = self.scheduler.plan(line.now)
                self.scheduler.overdue.clear()
                assert [self._told(work) for work in works] == line.works
                self.works = {self.ids[work.sequence]: work for work in works}
            case Committed():
                outcomes = [
                    Outcome(self.works[number], list(tokens), accepted, ended)
                    for number, tokens, accepted, ended in line.outcomes
                ]
                for outcome in outcomes:
                    self.kernel.compute(outcome.work, self.public)
                for outcome in outcomes:  # drafts that came true are in the slot, too
                    held = self.kernel.held[outcome.work.sequence.slot]
                    held.tokens += outcome.work.drafts[: outcome.accepted]
                    held.keys += [outcome.work.sequence.key] * outcome.accepted
                self.scheduler.commit(outcomes, line.seconds)

    def _told(self, work: Work) -> tuple[int, int, int, int, bool, list[int]]:
        sequence = work.sequence
        return self.ids[sequence], sequence.slot, work.begin, work.end, work.samples, list(work.drafts)


def test_a_busy_engine_can_be_replayed(bench: Any, smollm2: Path, simulated_kernel: Any, tmp_path: Path) -> None:
    file = tmp_path / "steps.jsonl"
    engine = type(bench)(smollm2, trace=str(file), slots=2, cache=4 * MEBIBYTE, queue=8)

    async def asked(number: int) -> None:
        words = "one two three four five six seven eight nine ten " * (1 + number % 3)
        request: dict[str, Any] = {
            "prompts": (f"{words} {number}" if number % 2 else words,),
            "max_tokens": 4 + number % 9,
            "tenant": f"t{number % 3}",
            "priority": ("interactive", "standard", "batch")[number % 3],
            "sampling": wire.Sampling(temperature=0.0, ignore_eos=True),
        }
        if number % 5 == 4:  # gone before the end
            async for event in engine.events(**request):
                if isinstance(event, wire.Tokens):
                    return
        await engine.answer(**request)

    async def all_of_them() -> None:
        for turn in range(2):
            await asyncio.gather(*(asked(8 * turn + number) for number in range(8)), return_exceptions=False)

    engine.runner.run(all_of_them())
    engine.close()
    told = lines(file)
    replay = Replay(told[0], simulated_kernel)
    for line in told[1:]:
        replay.do(line)
    assert sum(isinstance(line, Planned) for line in told) > 20
    assert any(isinstance(line, Cancelled) for line in told)
    assert replay.scheduler.counts.cached > 0
    assert not replay.scheduler.has_work()
