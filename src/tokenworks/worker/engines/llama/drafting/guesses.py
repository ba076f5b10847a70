"""What is guessed to follow in one sequence, and how well that went."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenworks.worker.engines.llama.drafting.chances import Chances
from tokenworks.worker.engines.llama.drafting.lengths import LONGEST
from tokenworks.worker.engines.llama.drafting.lookup import GRAM, Lookup
from tokenworks.worker.engines.llama.drafting.shared import Table, Tables
from tokenworks.worker.engines.llama.sampling import Sampler
from tokenworks.worker.engines.llama.scheduling.sequence import Sequence as Tokens

OWN, SHARED, MODEL = KINDS = ("own", "shared", "model")
"""Where a guess comes from: the sequence itself, other requests of its key, a draft model."""


class Guesses:
    """`lookup` None: only a draft model guesses. `sampler`: what the sequence's tokens are drawn with."""

    def __init__(self, lookup: Lookup | None, sampler: Sampler) -> None:
        self.sampler = sampler
        self.kind = OWN
        """Of `row`."""
        self.row: list[int] = []
        """What is guessed to follow the sequence's last token."""
        self.steps = 0
        """That brought tokens."""
        self._lookup = lookup
        self._runs = dict.fromkeys(KINDS, 0)
        """Guessed tokens that came true one after the other until now."""
        self._fed = -1

    def judge(self, came: Sequence[int], table: Table) -> None:
        """These tokens came."""
        self.steps += 1
        run = chances(table, self.kind).judge(self._runs[self.kind], self.row, came) if self.row else 0
        if self.kind == MODEL:
            self._runs[MODEL] = run
        else:
            self._runs[OWN] = self._runs[SHARED] = run
        self.row = []

    def learn(self, sequence: Tokens, tables: Tables) -> None:
        """What it says is there for others of its key from now on."""
        if self._lookup is None:
            return
        tokens = sequence.tokens
        if self._fed < 0:  # what came from the cache of prefixes was computed, so also learned, before
            self._fed = max(0, sequence.cached - GRAM)
        tables.learn(sequence.key, tokens, self._fed)
        self._fed = len(tokens)
        self._lookup.learn(tokens)

    def look_up(self, sequence: Tokens, tables: Tables, room: int) -> None:
        """Guesses at most `room` tokens, from what was said."""
        if self._lookup is None:
            return
        tokens, most = sequence.tokens, min(room, LONGEST)
        self.kind, self.row = OWN, self._lookup.guess(tokens, most)
        if not self.row:
            self.kind, self.row = SHARED, tables.of(sequence.key).guess(tokens, most)

    def reach(self, table: Table) -> list[float]:
        """The chance of each token of `row`."""
        return self.reach_of(self.kind, len(self.row), table) if self.row else []

    def reach_of(self, kind: str, length: int, table: Table) -> list[float]:
        return chances(table, kind).reach(self._runs[kind], length)


@dataclass(slots=True)
class Running:
    """A sequence that runs. `room`: the most tokens that may be guessed of it."""

    sequence: Tokens
    guesses: Guesses
    room: int


def chances(table: Table, kind: str) -> Chances:
    found = table.chances.get(kind)
    if found is None:
        found = table.chances[kind] = Chances()
    return found
