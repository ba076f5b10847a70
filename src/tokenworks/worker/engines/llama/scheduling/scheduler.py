"""One step at a time: `plan` says what to compute, `commit` takes what came of it. Between the two, nothing changes.

Order of a step: overdue sequences end; waiting ones get slots (by class, tenant, aging; see tenants.py), if need be
from others, whose keys and values are kept in memory; every sequence that generates gets its next token; what is left
of the token budget goes to prompts, split between tenants. Now and then a crowd sits out a step in which the short
prompt of somebody else is computed. A slot holds the longest sequence that was admitted, so memory is never promised
twice; what is kept beside the slots is bounded by the prefix cache.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from tokenworks.worker.engines.llama.scheduling.prefixes import Match, Prefixes
from tokenworks.worker.engines.llama.scheduling.rate import Rate
from tokenworks.worker.engines.llama.scheduling.sequence import (
    Kernel,
    Named,
    Outcome,
    Priority,
    Sequence,
    State,
    Work,
    common,
)
from tokenworks.worker.engines.llama.scheduling.slots import Slots
from tokenworks.worker.engines.llama.scheduling.tenants import QUANTUM, Tenant, Tenants, effective

WORTH_SHARING = 24
"""Tokens: a shorter prefix is computed again sooner than waited for or copied."""
CHUNK = 16
"""Tokens of a prompt that are worth a place in a step."""
UNFAIR = 2048
"""Tokens by which a running tenant may be ahead of a waiting one before it gives up a slot."""
LEAST_RUN = 1
"""Tokens that a sequence samples before another tenant may take its slot: it gets on, however often that happens. More
would make whoever arrives beside a crowd that just began wait for all of it."""
SITS_OUT = 4
"""At most one step in so many is kept free of a crowd, so that newcomers, however many, cost it a bounded share."""
PURGE = 1024
"""Submissions between two looks for tenants that are gone."""


class Refused(Exception):
    """The queue is full. `own`: the tenant's share of it. `retry_after`: seconds, from the measured rate."""

    def __init__(self, own: bool, retry_after: float) -> None:
        super().__init__()
        self.own = own
        self.retry_after = retry_after


@dataclass(slots=True)
class ClassCounts:
    """Of one priority. `tokens` computed; of those of `prompts`, `cached` were not."""

    tokens: int = 0
    prompts: int = 0
    cached: int = 0
    preemptions: int = 0


@dataclass(slots=True)
class Counts:
    """Since the start. `classes`: by priority."""

    steps: int = 0
    classes: tuple[ClassCounts, ...] = field(default_factory=lambda: tuple(ClassCounts() for _ in Priority))

    @property
    def prompts(self) -> int:
        return sum(each.prompts for each in self.classes)

    @property
    def cached(self) -> int:
        return sum(each.cached for each in self.classes)

    @property
    def preemptions(self) -> int:
        return sum(each.preemptions for each in self.classes)


class Scheduler:
    def __init__(self, kernel: Kernel, prefixes: Prefixes, *, budget: int, queue: int = 512) -> None:
        """`budget`: tokens of one step, at least one for each slot. `queue`: sequences that may wait."""
        if budget <= kernel.slots:
            raise ValueError(f"a budget of {budget} tokens leaves none for prompts beside {kernel.slots} slots")
        self.budget = budget
        self.prefixes = prefixes
        self.tenants = Tenants()
        self.rate = Rate()
        self.counts = Counts()
        self.running: list[Sequence] = []
        """In the order of their slots."""
        self.overdue: list[Sequence] = []
        """Those that ended because their deadline passed; the caller takes them out."""
        self._kernel = kernel
        self._slots = Slots(kernel.slots)
        self._queue = queue
        self._kept: dict[Sequence, Match] = {}
        self._deadlines = 0
        self._submitted = 0
        self._full_steps = SITS_OUT
        """In a row, in which nobody sat out."""
        self._full = True

    @property
    def waiting(self) -> int:
        return self.tenants.waiting

    def has_work(self) -> bool:
        return bool(self.running) or self.tenants.waiting > 0

    def submit(self, sequence: Sequence, now: float) -> None:
        """Refused when the queue, or this tenant's half of it, is full. ValueError when it can never fit."""
        if not 0 < len(sequence.tokens) < sequence.limit <= self._kernel.capacity:
            raise ValueError(
                f"{len(sequence.tokens)} tokens, at most {sequence.limit}: slots hold {self._kernel.capacity}"
            )
        if not self._slots.free or self.tenants.waiting:
            tenant = self.tenants.find(sequence.tenant)
            own = tenant is not None and len(tenant.waiting) >= max(1, self._queue // 2)
            if own or self.tenants.waiting >= self._queue:
                raise Refused(own, self.wait())
        sequence.arrived = now
        sequence.state = State.WAITING
        sequence.hit = self.prefixes.match(sequence.key, sequence.tokens).length
        self._deadlines += sequence.deadline < float("inf")
        self.tenants.enter(sequence)
        self._submitted += 1
        if self._submitted % PURGE == 0:
            self.tenants.forget_idle()

    def wait(self) -> float:
        """Seconds until what waits and runs now is done, at the measured rate; at least one."""
        left = sum(sequence.cost for sequence in self.tenants.waiting_sequences())
        left += sum(sequence.cost for sequence in self.running)
        return max(1.0, self.rate.seconds(left))

    def cancel(self, sequence: Sequence) -> None:
        """Its slot and all it holds are free at once. Does nothing when it has ended."""
        if sequence.state is State.WAITING:
            self.tenants.leave_queue(sequence)
            self._end(sequence)
        elif sequence.state is State.RUNNING:
            self._vacate(sequence)
            self._end(sequence)

    def plan(self, now: float) -> list[Work]:
        """The work of the next step, in the order of slots; empty when there is none."""
        if self._deadlines:
            self._expire(now)
        if self.tenants.waiting:
            self._admit(now)
        self._close_gap()
        left = self.budget
        works: list[Work] = []
        prompts: list[Sequence] = []
        for sequence in self._taking_part(now):
            tokens = len(sequence.tokens)
            if tokens - sequence.computed <= CHUNK and tokens > sequence.prompt:
                works.append(Work(sequence, sequence.computed, tokens, True, []))
                left -= tokens - sequence.computed
            else:
                prompts.append(sequence)
        if left < 0:
            left = _shorten(works, left)
        if prompts:
            left = self._prefill(prompts, left, works, now)
        for work in works:
            if work.sequence.drafts and work.samples and left > 0:
                work.drafts = work.sequence.drafts[:left]
                left -= len(work.drafts)
        return works

    def gives_way(self, new: Sequence, now: float) -> bool:
        """Whether the step that is planned keeps `new`, which just came, waiting for a crowd that would sit out its
        first step. Only reads."""
        tenant = self.tenants.find(new.tenant)
        if self._full_steps < SITS_OUT - 1 or new.state is not State.WAITING or (tenant and tenant.waiting):
            return False
        running, served = (tenant.running, tenant.served) if tenant else (0, 0.0)
        return any(
            # one for itself, and one that the crowd may have to give up
            self.tenants.of(other).running > running + 2
            and self.tenants.of(other).served + QUANTUM >= served
            and effective(other, now) >= new.priority
            for other in self.running
        )

    def commit(self, outcomes: list[Outcome], seconds: float, tell: Callable[[], None] = lambda: None) -> None:
        """What `plan` asked for was done in so many seconds; what has no outcome was given up. `tell` is called before
        anything is kept of those who end: copying it can take longer than a token, and the answer is there."""
        total = 0
        if outcomes:
            self._full_steps = self._full_steps + 1 if self._full else 0
        ended: list[Sequence] = []
        _share(outcomes, round(seconds * 1e9))
        for outcome in outcomes:
            work = outcome.work
            sequence = work.sequence
            if sequence.state is not State.RUNNING:  # cancelled meanwhile
                continue
            used = work.size
            total += used
            self.counts.classes[sequence.priority].tokens += used
            self.tenants.of(sequence).served += used
            sequence.computed = work.end + outcome.accepted
            if outcome.tokens:
                sequence.tokens += outcome.tokens
                sequence.sampled += len(outcome.tokens)
                sequence.drafts = []
            if sequence.named is not None and not sequence.told and sequence.computed >= sequence.prompt:
                self._show(sequence, sequence.named)
            if outcome.ended:
                ended.append(sequence)
        tell()
        for sequence in ended:
            self._keep(sequence)
            self._vacate(sequence)
            self._end(sequence)
        self.counts.steps += 1
        self.rate.add(total, seconds)

    # -- slots

    def _admit(self, now: float) -> None:
        """Slots for those who wait. Whoever waits for a running sequence's prefix is looked at again."""
        for tenant in self.tenants.active():
            for sequence in tenant.waiting:
                leader = sequence.leader
                if leader is not None and (leader.state is not State.RUNNING or leader.computed >= sequence.shared):
                    sequence.leader = None
        while (chosen := self.tenants.next(now)) is not None:
            if self._follows(chosen):
                continue
            if not self._slots.free and not self._take_from_other(chosen, now):
                break
            self._start(chosen, now)

    def _follows(self, sequence: Sequence) -> bool:
        """Whether it should wait for a running sequence that computes a prefix of it; what is computed is stored."""
        if not self._kernel.cuts or not self.prefixes.memory:
            return False
        match = self.prefixes.match(sequence.key, sequence.tokens)
        leader: Sequence | None = None
        longest = match.length + WORTH_SHARING
        tokens = sequence.tokens
        head = tokens[:WORTH_SHARING]
        for other in self.running:
            if other.key == sequence.key and other.tokens[:WORTH_SHARING] == head:
                shared = min(common(tokens, other.tokens, WORTH_SHARING), len(tokens) - 1)
                if shared > longest:
                    leader, longest = other, shared
        if leader is None:
            return False
        if leader.computed >= longest:
            self._store(leader, longest)
            return False
        sequence.leader, sequence.shared = leader, longest
        return True

    def _start(self, sequence: Sequence, now: float) -> None:
        """Gives it a slot, filled with what the cache has of it."""
        tenant = self.tenants.leave_queue(sequence)
        match = self.prefixes.match(sequence.key, sequence.tokens)
        parts = self.prefixes.fetch(match, min(match.length, len(sequence.tokens) - 1))
        usable = sum(size for size, _ in parts)
        sequence.slot = self._slots.take()
        if usable:
            self._kernel.load(sequence.slot, [stored for _, stored in parts])
        self._release(sequence)
        sequence.computed = usable
        sequence.sampled = 0
        sequence.standing = effective(sequence, now)
        sequence.state = State.RUNNING
        if sequence.started < 0:
            sequence.started = now
            sequence.cached = usable
            counts = self.counts.classes[sequence.priority]
            counts.cached += usable
            counts.prompts += sequence.prompt
        tenant.running += 1
        self.running.append(sequence)
        self.running.sort(key=_slot)

    def _take_from_other(self, waiting: Sequence, now: float) -> bool:
        """Frees a slot for someone of a higher class, or for a tenant that has had less than its share."""
        wanting = self.tenants.of(waiting)
        victim, worst = None, (0.0, 0.0, 0.0)
        for sequence in self.running:
            tenant = self.tenants.of(sequence)
            rank = effective(sequence, now) - waiting.priority
            if rank < 0 or (rank == 0 and (sequence.sampled < LEAST_RUN or not _ahead(tenant, wanting))):
                continue
            mine = (float(rank), tenant.served, sequence.started)
            if victim is None or mine > worst:
                victim, worst = sequence, mine
        if victim is None:
            return False
        self.preempt(victim)
        return True

    def preempt(self, sequence: Sequence) -> None:
        """Its slot is free; its keys and values wait in the cache."""
        match = self._store(sequence, sequence.computed)
        self._vacate(sequence)
        self.prefixes.pin(match)
        self._kept[sequence] = match
        sequence.state = State.WAITING
        sequence.hit = match.length
        sequence.computed = 0
        sequence.drafts = []
        sequence.preemptions += 1
        self.counts.classes[sequence.priority].preemptions += 1
        self.tenants.enter(sequence, front=True)

    def _close_gap(self) -> None:
        """Moves one sequence at the border into a gap between others; see slots.py."""
        running = self.running
        if not running or running[-1].slot - running[0].slot < len(running) or not self._kernel.cuts:
            return
        move = self._slots.closing()
        outer = next(sequence for sequence in (running[0], running[-1]) if sequence.slot == move[0])
        stored = self._kernel.save(outer.slot, 0, outer.computed) if outer.computed else None
        self._kernel.clear(outer.slot)
        self._slots.move(*move)
        outer.slot = move[1]
        if stored is not None:
            self._kernel.load(outer.slot, [stored])
        running.sort(key=_slot)

    def _vacate(self, sequence: Sequence) -> None:
        self._kernel.clear(sequence.slot)
        self._slots.give(sequence.slot)
        if sequence.told and sequence.named is not None and self.prefixes.listener is not None:
            sequence.told = False
            self.prefixes.listener.removed("slot", sequence.named.blocks)
        self.running.remove(sequence)
        self.tenants.of(sequence).running -= 1
        sequence.slot = -1

    def _end(self, sequence: Sequence) -> None:
        self._release(sequence)
        self._deadlines -= sequence.deadline < float("inf")
        sequence.state = State.ENDED
        sequence.leader = None

    def _expire(self, now: float) -> None:
        everyone: list[Sequence] = [*self.running, *self.tenants.waiting_sequences()]
        for sequence in everyone:
            if sequence.deadline <= now:
                self.cancel(sequence)
                self.overdue.append(sequence)

    # -- the cache

    def _show(self, sequence: Sequence, named: Named) -> None:
        """Whoever begins like this prompt would find it here."""
        listener = self.prefixes.listener
        if listener is not None and self._kernel.cuts:
            sequence.told = True
            listener.prompt(named.keys, named.blocks)
            listener.stored("slot", named.blocks)

    def _keep(self, sequence: Sequence) -> None:
        """What it computed may be the beginning of another one, such as the conversation's next turn."""
        if sequence.computed - sequence.cached >= WORTH_SHARING or sequence.cached < len(self.prefixes.public):
            self._store(sequence, sequence.computed)

    def _store(self, sequence: Sequence, end: int) -> Match:
        if not self._kernel.cuts:
            return Match()
        save: Callable[..., object] = self._kernel.save
        slot = sequence.slot
        return self.prefixes.insert(sequence.key, sequence.tokens, end, lambda a, b: save(slot, a, b))  # type: ignore[arg-type, return-value]

    def _release(self, sequence: Sequence) -> None:
        if (match := self._kept.pop(sequence, None)) is not None:
            self.prefixes.unpin(match)

    # -- the budget

    def _taking_part(self, now: float) -> list[Sequence]:
        """Who is in the next step: everybody, but for those who sit out. A tenant with fewer sequences than another one
        would wait for its first token as long as the other's many take, and bring little into the step itself."""
        self._full = True
        if self._full_steps < SITS_OUT - 1:
            return self.running
        new = [s for s in self.running if s.computed == s.cached and not s.preemptions and s.pending <= self.budget]
        part = [s for s in self.running if not any(self._outranks(one, s, now) for one in new)] if new else self.running
        self._full = len(part) == len(self.running)
        return part

    def _outranks(self, new: Sequence, other: Sequence, now: float) -> bool:
        """Whether `other` sits out while the prompt of `new` is computed. Never true of both, either way."""
        mine, theirs = self.tenants.of(new), self.tenants.of(other)
        return (
            mine.running < theirs.running
            and mine.served <= theirs.served + QUANTUM
            and effective(new, now) <= effective(other, now)
        )

    def _prefill(self, prompts: list[Sequence], left: int, works: list[Work], now: float) -> int:
        """Prompts share the rest: the highest class first, then the least served tenant; in chunks, so that nobody
        waits long for anybody, and what is left over to whoever can use it. Gives what is still left."""
        tenants = self.tenants
        prompts.sort(key=lambda s: (effective(s, now), tenants.of(s).served, tenants.of(s).running, s.started))
        share = max(CHUNK, left // len({sequence.tenant for sequence in prompts}))
        given = dict.fromkeys(prompts, 0)
        shares = {sequence.tenant: share for sequence in prompts}
        for sequence in prompts:
            count = _piece(sequence.pending, shares[sequence.tenant], left)
            if sequence is prompts[0]:  # it gets on, whatever comes after it
                count = count or min(share, left)
            given[sequence] = count
            shares[sequence.tenant] -= count
            left -= count
        for whole in (True, False):
            for sequence in prompts:
                rest = sequence.pending - given[sequence]
                if rest <= left or not whole:
                    given[sequence] += min(rest, left)
                    left -= min(rest, left)
        for sequence, count in given.items():
            if count > 0:
                end = sequence.computed + count
                works.append(Work(sequence, sequence.computed, end, end == len(sequence.tokens), []))
        works.sort(key=lambda work: work.sequence.slot)
        return left


def _share(outcomes: list[Outcome], nanoseconds: int) -> None:
    """A step's time, by the tokens that it computed for each; the shares add up to it exactly."""
    left = sum(outcome.work.size for outcome in outcomes)
    for outcome in outcomes:
        share = nanoseconds * outcome.work.size // left
        outcome.work.sequence.busy_ns += share
        nanoseconds -= share
        left -= outcome.work.size


def _piece(pending: int, share: int, left: int) -> int:
    """Tokens of a prompt that go into a step: of a short one all or, for now, none; no crumb is left of a longer one.
    A kernel computes rows of equal length together, so every odd piece is a pass over the weights of its own."""
    if pending <= min(share + CHUNK, left):
        return pending
    return max(0, min(share, left)) if pending > 2 * CHUNK else 0


def _shorten(works: list[Work], left: int) -> int:
    """Forced tokens made more work than the budget: the last of those wait for the next step. Gives what is left."""
    for work in reversed(works):
        cut = min(-left, work.end - work.begin - 1)
        work.end -= cut
        work.samples = work.samples and not cut
        left += cut
    return left


def _ahead(running: Tenant, waiting: Tenant) -> bool:
    """Whether `running` has more than its share of the slots, or was served far more."""
    if running.running >= waiting.running + 2:
        return True
    return running is not waiting and running.served > waiting.served + UNFAIR and running.running >= waiting.running


def _slot(sequence: Sequence) -> int:
    return sequence.slot
