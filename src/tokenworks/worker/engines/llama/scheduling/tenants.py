"""Who is next: virtual token counters between tenants, highest response ratio within one.

Every computed token is charged to its tenant. The tenant that was served least goes first, except that within `QUANTUM`
tokens the one whose prefix is in the cache goes first: locality costs a bounded share of fairness (VTC,
arXiv 2401.00588; DLPM, arXiv 2501.14312). A tenant that comes back is lifted to the least served active one: idling
saves up no credit.
"""

import math
from collections.abc import Iterator

from tokenworks.worker.engines.llama.scheduling.sequence import Priority, Sequence, State

QUANTUM = 512
"""Tokens by which a tenant with a cached prefix may go ahead of the least served one."""
AGING = (math.inf, 30.0, 300.0)
"""Seconds of waiting after which a sequence of each class counts as one class higher, so that nobody starves."""
LOOK_AHEAD = 32
"""Waiting sequences of a tenant that are compared."""


class Tenant:
    __slots__ = ("name", "running", "served", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.served = 0.0
        self.waiting: list[Sequence] = []
        self.running = 0

    @property
    def active(self) -> bool:
        return bool(self.waiting) or self.running > 0

    def best(self, now: float) -> Sequence | None:
        """The waiting sequence of the highest class, there the one with the highest response ratio, that waits for no
        other's prefix."""
        chosen, rank = None, (0.0, 0.0)
        for sequence in self.waiting[:LOOK_AHEAD]:
            if sequence.leader is not None:
                continue
            ratio = 1 + (now - sequence.arrived) / sequence.cost
            mine = (-float(effective(sequence, now)), ratio)
            if chosen is None or mine > rank:
                chosen, rank = sequence, mine
        return chosen


class Tenants:
    def __init__(self) -> None:
        self._all: dict[str, Tenant] = {}
        self._floor = 0.0
        self.waiting = 0

    def __len__(self) -> int:
        return len(self._all)

    def find(self, name: str) -> Tenant | None:
        return self._all.get(name)

    def of(self, sequence: Sequence) -> Tenant:
        return self._all[sequence.tenant]

    def active(self) -> list[Tenant]:
        return [tenant for tenant in self._all.values() if tenant.active]

    def waiting_sequences(self) -> Iterator[Sequence]:
        for tenant in self._all.values():
            yield from tenant.waiting

    def enter(self, sequence: Sequence, *, front: bool = False) -> None:
        """Into its tenant's queue; at the front when it was preempted."""
        tenant = self._all.get(sequence.tenant)
        if tenant is None:
            tenant = self._all[sequence.tenant] = Tenant(sequence.tenant)
        if not tenant.active:
            self._floor = max(self._floor, min((t.served for t in self._all.values() if t.active), default=self._floor))
            tenant.served = max(tenant.served, self._floor)
        if front:
            tenant.waiting.insert(0, sequence)
        else:
            tenant.waiting.append(sequence)
        self.waiting += 1

    def leave_queue(self, sequence: Sequence) -> Tenant:
        tenant = self._all[sequence.tenant]
        tenant.waiting.remove(sequence)
        self.waiting -= 1
        return tenant

    def forget_idle(self) -> None:
        """A tenant without work is dropped once others were served as much: it would be lifted there anyway."""
        active = [tenant.served for tenant in self._all.values() if tenant.active]
        self._floor = max(self._floor, min(active, default=self._floor))
        if not active:  # nobody is ahead of anybody
            self._floor = max((tenant.served for tenant in self._all.values()), default=self._floor)
        idle = [name for name, t in self._all.items() if not t.active and t.served <= self._floor]
        for name in idle:
            del self._all[name]

    def next(self, now: float) -> Sequence | None:
        """Of the highest class that waits: the least served tenant's best; within a quantum, the best cached one."""
        heads = [
            (effective(head, now), tenant.served, head)
            for tenant in self._all.values()
            if tenant.waiting and (head := tenant.best(now)) is not None
        ]
        if not heads:
            return None
        first = min(head[0] for head in heads)
        least = min(head[1] for head in heads if head[0] == first)
        near = [head for head in heads if head[0] == first and head[1] <= least + QUANTUM]
        return max(near, key=lambda head: (head[2].hit, -head[1], -head[2].arrived))[2]


def effective(sequence: Sequence, now: float) -> int:
    """Its class, improved by waiting. Running improves nothing: long answers would hold their slots against all."""
    if sequence.state is State.RUNNING:
        return sequence.standing
    waited = now - sequence.arrived
    if waited < AGING[sequence.priority]:
        return sequence.priority
    return max(int(Priority.INTERACTIVE), sequence.priority - int(waited / AGING[sequence.priority]))
