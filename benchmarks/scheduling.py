"""What our engine's scheduler costs and what its cache finds again: no model, no process, no clock but for the cost."""

import json
import time
from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from pathlib import Path

from tokenworks.worker.engines.llama.scheduling.prefixes import Prefixes
from tokenworks.worker.engines.llama.scheduling.scheduler import Scheduler
from tokenworks.worker.engines.llama.scheduling.sequence import Outcome, Sequence

SEQUENCES, STEPS = 64, 400
TRACE = Path(__file__).with_name("mooncake_conversation.jsonl")
"""FAST25-release/traces/conversation_trace.jsonl of kvcache-ai/Mooncake, put here by whoever wants its row."""


@dataclass(slots=True)
class Row:
    load: str
    ours: str
    theirs: str
    ratio: str
    target: str


def rows() -> list[Row]:
    return [_cost(), *([_hit_rate()] if TRACE.exists() else [])]


class _Block:
    __slots__ = ("size",)

    def __init__(self, size: int) -> None:
        self.size = size

    def part(self, begin: int, end: int) -> "_Block":
        return _Block(end - begin)


class _Kernel:
    """Holds nothing."""

    slots, capacity, cuts = SEQUENCES, 4096, True

    def save(self, slot: int, begin: int, end: int) -> _Block:
        return _Block(end - begin)

    def load(self, slot: int, parts: Tokens[_Block]) -> None: ...

    def clear(self, slot: int) -> None: ...


def _cost() -> Row:
    """`plan` and `commit` while every slot is taken, a prompt comes in with every eighth step, and as many wait."""
    scheduler = Scheduler(_Kernel(), Prefixes(1 << 20), budget=512)

    def submit(number: int) -> None:
        tokens = [number * 1000 + at for at in range(200)]
        scheduler.submit(Sequence(tokens, 800, f"t{number % 8}", (f"t{number % 8}", "")), float(number))

    for number in range(2 * SEQUENCES):
        submit(number)
    spent = 0.0
    for step in range(STEPS):
        begun = time.perf_counter()
        works = scheduler.plan(float(step))
        planned = time.perf_counter()
        oldest = max(scheduler.running, key=lambda sequence: sequence.sampled)
        outcomes = [
            Outcome(work, [step] if work.samples else [], ended=step % 8 == 0 and work.sequence is oldest)
            for work in works
        ]
        computed = time.perf_counter()
        scheduler.commit(outcomes, 0.1)
        spent += planned - begun + time.perf_counter() - computed
        if step % 8 == 0:
            submit(step + 2 * SEQUENCES)
    cost = f"{spent / STEPS * 1000:.2f} ms"
    return Row(f"scheduler, a step of {SEQUENCES} sequences", cost, "", "", "<= 1 ms")


def _hit_rate() -> Row:
    """Of a trace of conversations, with a quarter of the memory that holds everything."""
    requests = [json.loads(line)["hash_ids"] for line in TRACE.read_text().splitlines()]
    everything, used = _replay(requests, 1 << 60)
    quarter, _ = _replay(requests, used // 4)
    ratio = f"{quarter / everything:.2f}"
    return Row("Mooncake conversations, hit rate", f"{quarter:.3f}", f"{everything:.3f}", ratio, ">= 0.9")


def _replay(requests: list[list[int]], memory: int) -> tuple[float, int]:
    prefixes, hits, total = Prefixes(memory), 0, 0
    for blocks in requests:
        hits += prefixes.match(("", ""), blocks).length
        total += len(blocks)
        prefixes.insert(("", ""), blocks, len(blocks), lambda begin, end: _Block(end - begin))
    return hits / total, prefixes.used
