"""A kernel that computes nothing and checks everything: each slot holds the tokens that were computed into it."""

import random
from collections.abc import Sequence as Row
from dataclasses import dataclass, field

import pytest

from tokenworks.worker.engines.llama.scheduling.prefixes import Node, Prefixes
from tokenworks.worker.engines.llama.scheduling.scheduler import SITS_OUT, Scheduler
from tokenworks.worker.engines.llama.scheduling.sequence import Key, Outcome, Sequence, Work

END = 0
"""The token that ends a sequence."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Keys and values of these tokens, computed for this key; `at` is the position of the first."""

    tokens: tuple[int, ...]
    key: Key
    at: int

    @property
    def size(self) -> int:
        return len(self.tokens)

    def part(self, begin: int, end: int) -> "Cells":
        return Cells(self.tokens[begin:end], self.key, self.at + begin)


@dataclass(slots=True)
class Slot:
    tokens: list[int] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)


class SimulatedKernel:
    def __init__(self, slots: int, capacity: int) -> None:
        self.slots = slots
        self.capacity = capacity
        self.held = [Slot() for _ in range(slots)]
        self.saved = self.loaded = 0
        self.cuts = True

    def save(self, slot: int, begin: int, end: int) -> Cells:
        assert self.cuts
        held = self.held[slot]
        assert 0 <= begin < end <= len(held.tokens)
        self.saved += end - begin
        return Cells(tuple(held.tokens[begin:end]), held.keys[end - 1], begin)

    def load(self, slot: int, parts: Row[Cells]) -> None:
        held = self.held[slot]
        assert not held.tokens, "a slot is filled while it holds another sequence"
        for part in parts:
            assert part.at == len(held.tokens)
            held.tokens += part.tokens
            held.keys += [part.key] * part.size
        assert len(held.tokens) <= self.capacity
        self.loaded += len(held.tokens)

    def clear(self, slot: int) -> None:
        self.held[slot] = Slot()

    def compute(self, work: Work, public: int = 0) -> None:
        """What the real kernel does, and what must hold for it to be right."""
        sequence, held = work.sequence, self.held[work.sequence.slot]
        assert len(held.tokens) == work.begin == sequence.computed, "positions have to follow each other"
        assert work.begin < work.end <= len(sequence.tokens)
        if work.begin < len(sequence.tokens) and not sequence.sampled:
            assert held.tokens == sequence.tokens[: work.begin], "its cells are those of other tokens"
            own = [key for at, key in enumerate(held.keys) if key != sequence.key and at >= public]
            assert not own, f"{sequence.key} uses what was computed for {own}"
        held.tokens += sequence.tokens[work.begin : work.end]
        held.keys += [sequence.key] * (work.end - work.begin)
        assert len(held.tokens) + len(work.drafts) <= self.capacity


class SimulatedFile:
    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self.users = 0
        self.ready = self.lost = False


class SimulatedPart:
    def __init__(self, shelf: "SimulatedShelf", file: SimulatedFile, begin: int, end: int) -> None:
        file.users += 1
        self.shelf, self.file, self.begin, self.end = shelf, file, begin, end

    @property
    def ready(self) -> bool:
        return self.file.ready

    @property
    def lost(self) -> bool:
        return self.file.lost

    def part(self, begin: int, end: int) -> "SimulatedPart":
        return SimulatedPart(self.shelf, self.file, self.begin + begin, self.begin + end)

    def read(self) -> Cells | None:
        assert self.file.users > 0, "a file is read after it was let go"
        if self.shelf.rng.random() < 0.03:
            self.shelf.lose(self.file)
            self.shelf.broken += 1
        if self.file.lost:
            return None
        self.shelf.reads += 1
        return self.file.cells.part(self.begin, self.end)

    def let_go(self) -> None:
        self.file.users -= 1
        assert self.file.users >= 0
        if not self.file.users:
            self.shelf.lose(self.file)


class SimulatedShelf:
    """Files that are written some time later, take limited room, and break now and then."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rng = random.Random(limit)
        self.files: dict[SimulatedFile, None] = {}
        self.reads = self.broken = 0

    @property
    def used(self) -> int:
        return sum(file.cells.size for file in self.files)

    def lose(self, file: SimulatedFile) -> None:
        file.lost = True
        self.files.pop(file, None)

    def write(self, node: Node, tokens: list[int]) -> SimulatedPart | None:
        assert len(tokens) == node.depth + len(node.tokens)
        assert isinstance(node.stored, Cells)
        for file in self.files:
            file.ready = file.ready or self.rng.random() < 0.3
        if self.rng.random() < 0.05:
            return None
        while self.files and self.used + node.stored.size > self.limit:
            self.lose(next(iter(self.files)))
        file = SimulatedFile(node.stored)
        self.files[file] = None
        return SimulatedPart(self, file, 0, node.stored.size)


class Simulation:
    """Time passes by tokens. A sequence ends after `outputs[sequence]` new tokens."""

    def __init__(
        self, slots: int = 4, capacity: int = 256, budget: int = 32, memory: int = 512, **more: object
    ) -> None:
        self.kernel = SimulatedKernel(slots, capacity)
        self.public: list[int] = list(more.pop("public", []))  # type: ignore[call-overload]
        self.shelf = SimulatedShelf(int(more.pop("shelf", 0)))  # type: ignore[call-overload]
        shelf = self.shelf if self.shelf.limit else None
        self.prefixes = Prefixes(memory, self.public, more.pop("listener", None), shelf)  # type: ignore[arg-type]
        self.scheduler = Scheduler(self.kernel, self.prefixes, budget=budget, **more)  # type: ignore[arg-type]
        self.outputs: dict[Sequence, int] = {}
        self.ended: list[Sequence] = []
        self.now = 0.0
        self.speed = 100.0
        self.full_steps = SITS_OUT
        """In a row, in which nobody sat out."""
        self.sat_out = 0
        """Steps in which somebody did."""
        self.given_up = 0.0
        """Share of the steps that come to nothing."""
        self.rng = random.Random(slots)
        self._next = 1000

    def submit(self, tokens: list[int], output: int, **more: object) -> Sequence:
        sequence = Sequence(list(tokens), len(tokens) + output, expected=output, **more)  # type: ignore[arg-type]
        self.scheduler.submit(sequence, self.now)
        self.outputs[sequence] = output
        return sequence

    def step(self) -> list[Work]:
        works = self.scheduler.plan(self.now)
        total = sum(work.end - work.begin + len(work.drafts) for work in works)
        assert total <= self.scheduler.budget
        assert self.prefixes.used <= self.prefixes.memory
        if total < self.scheduler.budget:  # then nothing that could be done is left
            assert all(work.end == len(work.sequence.tokens) for work in works)
            if self.scheduler.waiting and self.scheduler._slots.free:
                assert all(sequence.leader for sequence in self.scheduler.tenants.waiting_sequences())
        given_up = self.rng.random() < self.given_up
        self.check_who_sits_out({work.sequence for work in works}, total, given_up)
        outcomes = []
        public = len(self.public)
        for work in works if not given_up else ():
            self.kernel.compute(work, public)
            if work.samples:
                self._next += 1
                sequence = work.sequence
                done = len(sequence.tokens) + 1 - sequence.prompt >= self.outputs[sequence]
                outcomes.append(Outcome(work, [self._next], ended=done))
                if done:
                    self.ended.append(sequence)
                    del self.outputs[sequence]
            else:
                outcomes.append(Outcome(work, []))
        seconds = total / self.speed
        self.now += seconds
        self.scheduler.commit(outcomes, seconds)
        for sequence in self.scheduler.overdue:
            del self.outputs[sequence]
        self.scheduler.overdue.clear()
        return works

    def check_who_sits_out(self, part: set[Sequence], total: int, given_up: bool) -> None:
        """Whoever generates is in each step, and everybody where there is room, but for one step in `SITS_OUT`: in
        that one the prompt of a tenant with fewer sequences is computed, and it is worth the step."""
        running = self.scheduler.running
        assert part or not running
        full = total == self.scheduler.budget
        out = [one for one in running if one not in part and not (full and len(one.tokens) == one.prompt)]
        if not given_up:
            self.full_steps += 1
        if any(len(one.tokens) > one.prompt and one.pending == 1 for one in out) or (out and not full):
            assert self.full_steps >= SITS_OUT - given_up
            if not given_up:
                self.full_steps = 0
                self.sat_out += 1
            new = [self.scheduler.tenants.of(one).running for one in part if len(one.tokens) == one.prompt]
            assert all(self.scheduler.tenants.of(one).running > min(new) for one in out)

    def run(self, most: int = 100_000) -> int:
        """Until nothing is left: the number of steps."""
        for steps in range(most):
            if not self.scheduler.has_work():
                return steps
            self.step()
        raise AssertionError(f"work is left after {most} steps")

    def assert_empty(self) -> None:
        """No sequence, slot, cell or pin is left behind."""
        assert not self.scheduler.running
        assert not self.scheduler.waiting
        assert all(not slot.tokens for slot in self.kernel.held)
        assert self.scheduler._slots.free == self.kernel.slots
        assert not self.scheduler._kept
        assert not any(tenant.active for tenant in self.scheduler.tenants._all.values())
        nodes = list(every_node(self.prefixes))
        assert all(node.pins == 0 for node in nodes)
        assert len(nodes) == self.prefixes.nodes
        assert sum(node.stored.size for node in nodes if node.stored) == self.prefixes.used
        for node in nodes:
            assert node.held == sum(child.stored is not None for child in node.children.values())
            assert node.stored is not None or node.written is not None
        written = {id(node.written.file) for node in nodes if node.written is not None}
        assert all(id(file) in written for file in self.shelf.files), "a file that nothing refers to"
        assert self.shelf.used <= self.shelf.limit


def every_node(prefixes: Prefixes) -> list:
    found, left = [], list(prefixes._roots.values())
    while left:
        node = left.pop()
        left += node.children.values()
        if node.parent is not None:
            found.append(node)
    return found


@pytest.fixture(scope="session")
def simulation() -> type[Simulation]:
    return Simulation


@pytest.fixture(scope="session")
def simulated_kernel() -> type[SimulatedKernel]:
    return SimulatedKernel
