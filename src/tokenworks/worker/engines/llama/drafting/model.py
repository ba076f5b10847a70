"""A small model that guesses for a big one of the same vocabulary: a second context in the same thread.

It has a slot for each sequence that it guesses for, which holds what it computed of that sequence's tokens. Nothing has
to be told to it: before it guesses it cuts what did not come true and computes what it has not seen, so a sequence that
was preempted, moved or resumed is simply computed again, a chunk in each step. Its guesses are drawn as the sequence's
own tokens will be, with the same chance for the same position, so that they agree as often as the two models do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tokenworks.worker.engines.llama.drafting.cost import Cost, passes
from tokenworks.worker.engines.llama.drafting.lengths import MARGIN
from tokenworks.worker.engines.llama.kernel import Rows
from tokenworks.worker.engines.llama.sampling import Row, Sampler
from tokenworks.worker.engines.llama.scheduling.sequence import Sequence as Tokens
from tokenworks.worker.engines.llama.scheduling.sequence import Work, common
from tokenworks.worker.engines.llama.scheduling.slots import Slots

LENGTHS = (1, 2, 3, 4, 6, 8)
CHUNK = 64
"""Tokens of prompts that it computes before one step: others wait for them."""
FAR = 256
"""Tokens: who is behind by more is not taken for a trial."""
AHEAD = 8
"""Tokens that it may be behind by and still guess in this step."""
REST, LONGEST_REST = 128, 4096
"""Steps after which it is tried again that it gained nothing; twice as many each time."""
TRIAL, TRIAL_LENGTH = 4, 2
"""Steps of a trial, and what is guessed in them."""


class Network(Protocol):
    """What computes it: a `Kernel`."""

    slots: int
    capacity: int
    batch: int

    def compute(self, works: list[Work]) -> Sequence[Rows | None]: ...

    def cut(self, slot: int, length: int) -> None: ...

    def clear(self, slot: int) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Draft:
    """A sequence to guess for: at most so many tokens."""

    sequence: Tokens
    sampler: Sampler
    most: int


@dataclass(slots=True)
class _Follower:
    """`own`: the same tokens in a slot of the draft model; `sure` of them are known to be the sequence's."""

    own: Tokens
    sure: int = 0


class DraftModel:
    """`vocabulary`: tokens that it knows; `width`: those of the model that it guesses for. `share`: how big it is
    beside that one. `free`: gives its weights back."""

    def __init__(
        self, network: Network, *, vocabulary: int, width: int, share: float, free: Callable[[], None] = lambda: None
    ) -> None:
        self._network = network
        self._vocabulary = vocabulary
        self._width = width
        self._share = share
        self._free = free
        self._slots = Slots(network.slots)
        self._followers: dict[Tokens, _Follower] = {}
        self._rest, self._rested, self._trial = REST, 0, 0
        self.cost = Cost()

    def begin(self, cost: Cost) -> None:
        """What the big model's passes cost, which tells something before its own are measured."""
        self.cost = Cost(cost, self._share)

    def close(self) -> None:
        self._network.close()
        self._free()

    def keep(self, sequences: set[Tokens]) -> None:
        """The slots of all others are free."""
        for gone in self._followers.keys() - sequences:
            slot = self._followers.pop(gone).own.slot
            self._network.clear(slot)
            self._slots.give(slot)

    def can(self, draft: Draft) -> bool:
        """Whether the sequence fits, and says nothing that it does not know."""
        return len(draft.sequence.tokens) + draft.most <= self._network.capacity and (
            self._vocabulary >= self._width or max(draft.sequence.tokens) < self._vocabulary
        )

    def behind(self, sequence: Tokens) -> int:
        """Tokens that it has not computed of it."""
        follower = self._followers.get(sequence)
        if follower is None:
            return len(sequence.tokens)
        same = common(follower.own.tokens, sequence.tokens, follower.sure)
        return len(sequence.tokens) - min(follower.own.computed, same)

    def seconds(self, drafts: Sequence[Draft], length: int) -> float:
        """That it takes to guess so many tokens for each, once it is not behind."""
        if not length:
            return 0.0
        first = [("", at, min(self.behind(draft.sequence), AHEAD)) for at, draft in enumerate(drafts)]
        return self.cost.of(passes(first)) + (length - 1) * self.cost.of([len(drafts)])

    def plan(
        self, usual: float, rate_of: Callable[[int], float], drafts: Sequence[Draft]
    ) -> tuple[int, Sequence[Draft]]:
        """How many tokens to guess, and for whom; 0: it gains nothing. `usual`: tokens per second without."""
        rates = {length: rate_of(length) for length in LENGTHS}
        best = max(rates, key=lambda length: rates[length])
        if rates[best] > usual * MARGIN:
            self._rest, self._rested, self._trial = REST, 0, 0
            saved = (1 / usual - 1 / rates[best]) * len(drafts)
            worth = [draft for draft in drafts if self._is_worth(draft, saved)]
            return (best, worth) if worth else (0, ())
        if not self._trial:
            self._rested += 1
            if self._rested < self._rest:
                return 0, ()
            self._rest, self._rested, self._trial = min(2 * self._rest, LONGEST_REST), 0, TRIAL
        nearest = min(drafts, key=lambda draft: self.behind(draft.sequence))
        if self.behind(nearest.sequence) > FAR:
            return 0, ()
        self._trial -= self.behind(nearest.sequence) <= AHEAD
        return TRIAL_LENGTH, [nearest]

    def _is_worth(self, draft: Draft, saved: float) -> bool:
        """Whether what is left of an answer pays for reading its prompt, at so many seconds saved for each token."""
        behind = self.behind(draft.sequence)
        left = min(draft.sequence.limit - len(draft.sequence.tokens), draft.sequence.expected)
        return behind <= AHEAD or self.cost.of([CHUNK]) * behind / CHUNK < saved * left

    def draft(self, drafts: Sequence[Draft], length: int) -> list[list[int]]:
        """Guesses for each; none for whom it was behind, some of which it makes up for now."""
        left, room = CHUNK, self._network.batch
        ready: list[tuple[int, _Follower]] = []
        for number, draft in enumerate(drafts):
            follower = self._follow(draft.sequence)
            if follower is None:
                continue
            behind = follower.own.pending
            if behind <= min(AHEAD, room):
                ready.append((number, follower))
                room -= behind
            elif behind > AHEAD and left > 0:
                end = follower.own.computed + min(left, behind - 1)
                self._compute([Work(follower.own, follower.own.computed, end, False, [])])
                left -= min(left, behind - 1)
        found: list[list[int]] = [[] for _ in drafts]
        samplers = {number: drafts[number].sampler.copy() for number, _ in ready}
        ready.sort(key=lambda each: each[1].own.slot)
        for _ in range(length):
            works = [Work(one.own, one.own.computed, len(one.own.tokens), True, []) for _, one in ready]
            if not works:
                break
            going = []
            for (number, follower), rows in zip(ready, self._compute(works), strict=True):
                assert rows is not None  # noqa: S101 -- it samples
                token = samplers[number].sample(self._fit(rows[0]))
                samplers[number].accept(token)
                follower.own.tokens.append(token)
                found[number].append(token)
                if len(found[number]) < drafts[number].most and token < self._vocabulary:
                    going.append((number, follower))
            ready = going
        return found

    def _follow(self, sequence: Tokens) -> _Follower | None:
        """Its slot as the sequence is now: what did not come true is cut. None: no slot is free."""
        follower = self._followers.get(sequence)
        if follower is None:
            if not self._slots.free:
                return None
            own = Tokens([], self._network.capacity, slot=self._slots.take())
            follower = self._followers[sequence] = _Follower(own)
        own, tokens = follower.own, sequence.tokens
        same = common(own.tokens, tokens, follower.sure)
        same = min(same, len(tokens) - 1)
        if own.computed > same:
            self._network.cut(own.slot, same)
            own.computed = same
        del own.tokens[same:]
        own.tokens += tokens[same:]
        follower.sure = len(tokens)
        return follower

    def _compute(self, works: list[Work]) -> Sequence[Rows | None]:
        begun = self.cost.now()
        rows = self._network.compute(works)
        self.cost.add(passes([("", work.sequence.slot, work.size) for work in works]), self.cost.now() - begun)
        for work in works:
            work.sequence.computed = work.end
        return rows

    def _fit(self, row: Row) -> Row:
        """Logits of the big model's vocabulary: models of a family are padded to different lengths."""
        if self._vocabulary >= self._width:
            return row[: self._width]
        whole = np.full(self._width, -np.inf, np.float32)
        whole[: self._vocabulary] = row
        return whole
