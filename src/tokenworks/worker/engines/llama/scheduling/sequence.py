"""A sequence: tokens that one choice of one request consists of, and where its keys and values are."""

from collections.abc import Sequence as Row
from dataclasses import dataclass, field
from enum import IntEnum
from math import inf
from typing import Any, Protocol

Key = tuple[str, str]
"""(tenant salt, adapter): keys and values are never used under another one."""


class Priority(IntEnum):
    INTERACTIVE = 0
    STANDARD = 1
    BATCH = 2


class State(IntEnum):
    WAITING = 0
    RUNNING = 1
    ENDED = 2


class Stored(Protocol):
    """Keys and values of a row of tokens, outside any slot."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def part(self, begin: int, end: int) -> "Stored":
        """Of tokens `begin` to `end`, counted from its own first one. It keeps nothing else in memory."""
        ...


class Kernel(Protocol):
    """What the scheduler asks of an engine. A slot holds positions 0 to n of one sequence."""

    @property
    def slots(self) -> int: ...

    @property
    def capacity(self) -> int:
        """Tokens that fit into each slot."""
        ...

    @property
    def cuts(self) -> bool:
        """Whether keys and values can be saved and loaded; otherwise a sequence is computed anew each time."""
        ...

    def save(self, slot: int, begin: int, end: int) -> Stored:
        """A copy of these positions."""
        ...

    def load(self, slot: int, parts: Row[Any]) -> None:
        """Fills the empty slot with positions 0 to the parts' length."""
        ...

    def clear(self, slot: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Named:
    """What a caller calls a prompt's beginnings, and the names of the blocks that it consists of."""

    keys: Row[int]
    blocks: Row[int]


@dataclass(slots=True, eq=False)
class Sequence:
    """`limit`: the most tokens it may ever hold. `expected`: output tokens, for estimates only."""

    tokens: list[int]
    limit: int
    tenant: str = ""
    key: Key = ("", "")
    priority: int = Priority.STANDARD
    deadline: float = inf
    expected: int = 64
    prompt: int = 0
    state: State = State.WAITING
    slot: int = -1
    computed: int = 0
    """Tokens whose keys and values are in the slot."""
    cached: int = 0
    """Prompt tokens that were not computed for it, because their keys and values were there."""
    sampled: int = 0
    """Tokens sampled since it last got a slot."""
    arrived: float = 0.0
    started: float = -1.0
    """When it first got a slot; -1 before."""
    standing: int = Priority.STANDARD
    """Its class when it last got a slot, improved by waiting."""
    preemptions: int = 0
    busy_ns: int = 0
    """Its shares of the steps that computed something for it."""
    hit: int = 0
    """Estimate of what the cache holds of it."""
    leader: "Sequence | None" = None
    """A running sequence that is computing a prefix of this one ..."""
    shared: int = 0
    """... and how long that prefix is."""
    named: Named | None = None
    told: bool = False
    """That its prompt is in the slot."""
    drafts: list[int] = field(default_factory=list)
    """Guesses of the next tokens, to be checked in one step."""

    def __post_init__(self) -> None:
        self.prompt = self.prompt or len(self.tokens)

    @property
    def pending(self) -> int:
        """Known tokens that are not computed yet; at least one while it is not ended."""
        return len(self.tokens) - self.computed

    @property
    def cost(self) -> int:
        """Tokens that it takes to finish it, as far as one can tell."""
        return max(1, len(self.tokens) - max(self.computed, self.hit) + self.expected)


class Work:
    """Compute the tokens `begin` to `end` of a sequence, then its drafts; sample at the end if `samples`."""

    __slots__ = ("begin", "drafts", "end", "samples", "sequence")

    def __init__(self, sequence: Sequence, begin: int, end: int, samples: bool, drafts: list[int]) -> None:
        self.sequence = sequence
        self.begin = begin
        self.end = end
        self.samples = samples
        self.drafts = drafts

    @property
    def size(self) -> int:
        """Tokens of the forward pass."""
        return self.end - self.begin + len(self.drafts)


@dataclass(slots=True)
class Outcome:
    """What sampling made of a `Work`: new tokens, of which the first `accepted` are drafts that came true, and whether
    the sequence ends with them."""

    work: Work
    tokens: list[int]
    accepted: int = 0
    ended: bool = False


def common(one: Row[int], other: Row[int], start: int = 0) -> int:
    """How many tokens two rows share from the left; the first `start` are known to be equal."""
    low, high = start, min(len(one), len(other))
    if one[low:high] == other[low:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
