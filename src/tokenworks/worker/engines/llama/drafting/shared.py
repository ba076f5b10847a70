"""What followed what in other requests of the same key (tenant salt, adapter): alike requests get alike answers.

One table for each key: nothing that was said under one key is looked up, nor judged, under another, so that neither
text nor speed tells anybody what somebody else said. All tables together are bounded in bytes: the key that was used
longest ago makes room first; one key has at most half.
"""

from collections import OrderedDict
from collections.abc import Sequence

from tokenworks.worker.engines.llama.drafting.chances import Chances
from tokenworks.worker.engines.llama.drafting.lookup import GRAM
from tokenworks.worker.engines.llama.scheduling.sequence import Key

ENTRY = 144
"""Bytes that one gram takes in CPython's dictionary, with its key and value, at worst."""
KEY = 4096
"""Bytes of a table without any."""
LEAST = 1 << 20
"""Bytes: how often guesses come true is remembered, by key, also where grams are not."""
_BITS = 24
_MASK = (1 << _BITS * GRAM) - 1


class Table:
    """Of one key. `size`: grams. Two generations: what is used moves to the young one, the old one goes as a whole."""

    def __init__(self) -> None:
        self.chances: dict[str, Chances] = {}
        """By kind of guess."""
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}

    @property
    def size(self) -> int:
        return len(self._young) + len(self._old)

    def learn(self, tokens: Sequence[int], begin: int, most: int) -> None:
        """What follows each gram, from position `begin` on. The table holds at most `most` grams."""
        begin = max(begin, GRAM)
        gram = _packed(tokens[begin - GRAM : begin])
        young = self._young
        for at in range(begin, len(tokens)):
            if len(young) >= most // 2:
                self._old = young
                self._young = young = {}
            young[gram] = tokens[at]
            gram = (gram << _BITS | tokens[at]) & _MASK

    def guess(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most so many tokens that followed, each of the one before."""
        found: list[int] = []
        if len(tokens) < GRAM:
            return found
        gram = _packed(tokens[-GRAM:])
        for _ in range(most):
            token = self._young.get(gram)
            if token is None:
                token = self._old.get(gram)
                if token is None:
                    break
            found.append(token)
            gram = (gram << _BITS | token) & _MASK
        return found

    def shrink(self) -> None:
        """Forgets the older half, or what is left."""
        if not self._old:
            self._young = {}
        self._old = {}


class Tables:
    """`memory`: bytes of all of them."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self._limit = max(memory, LEAST)
        self._most = memory // ENTRY
        self._tables: OrderedDict[Key, Table] = OrderedDict()
        self._grams = 0

    @property
    def used(self) -> int:
        """Bytes."""
        return self._grams * ENTRY + len(self._tables) * KEY

    def of(self, key: Key) -> Table:
        """Found or made; it was used last now."""
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = Table()
            self._make_room()
        else:
            self._tables.move_to_end(key)
        return table

    def learn(self, key: Key, tokens: Sequence[int], begin: int) -> None:
        if not self._most:
            return
        table = self.of(key)
        before = table.size
        table.learn(tokens, begin, self._most // 2)
        self._grams += table.size - before
        self._make_room()

    def _make_room(self) -> None:
        while self.used > self._limit and len(self._tables) > 1:
            key, table = next(iter(self._tables.items()))
            before = table.size
            table.shrink()
            self._grams += table.size - before
            if not table.size:
                del self._tables[key]


def _packed(tokens: Sequence[int]) -> int:
    gram = 0
    for token in tokens:
        gram = gram << _BITS | token
    return gram
