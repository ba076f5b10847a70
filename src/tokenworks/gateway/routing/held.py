"""What replicas of ours hold of prompts, as they tell it themselves, and how a gateway knows a prompt's blocks.

Each replica tells which blocks of tokens it holds, and which blocks a prompt was that a gateway had given the names of
its text (prompt_keys.py). Both are bounded: by a replica's memory, and by MOST_KEYS.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from tokenworks.gateway.routing.prompt_keys import covered
from tokenworks.protocols.worker.kv import AllBlocksCleared, BlockRemoved, BlockStored, KVEvent, PromptNamed, Subscribe

MOST_KEYS = 50_000
_BITS = {"slot": 1, "ram": 2, "disk": 4}


class _Replica:
    """`live`: it is being listened to. `blocks`: where each is, as bits."""

    __slots__ = ("block", "blocks", "epoch", "live", "number")

    def __init__(self, cleared: AllBlocksCleared) -> None:
        self.epoch, self.number, self.block = cleared.epoch, cleared.number, cleared.block
        self.blocks: dict[int, int] = {}
        self.live = True


class Held:
    def __init__(self) -> None:
        self._replicas: dict[str, _Replica] = {}
        self._known: OrderedDict[int, tuple[array[int], int]] = OrderedDict()
        """By the name of a text: blocks of a prompt that begins with it, and how many of them are this text's."""

    def live(self, upstream: str) -> bool:
        """Whether it is known what this one holds."""
        replica = self._replicas.get(upstream)
        return replica is not None and replica.live

    def tokens(self, keys: Sequence[int], upstreams: Iterable[str]) -> dict[str, int]:
        """How many of the first tokens of a prompt with these keys each of them holds. Empty: it is not known which
        tokens these are."""
        known = self._longest(keys)
        if known is None:
            return {}
        return {upstream: self._run(self._replicas.get(upstream), *known) for upstream in upstreams}

    def take(self, upstream: str, event: KVEvent) -> None:
        """What it told. ValueError unless the first thing is that it begins anew."""
        if isinstance(event, AllBlocksCleared):
            self._replicas[upstream] = _Replica(event)
            return
        replica = self._replicas.get(upstream)
        if replica is None:
            raise ValueError(f"{upstream} tells of changes, and never what it held before")
        replica.number = event.number
        match event:
            case BlockStored(medium=medium, blocks=blocks):
                bit, held = _BITS[medium], replica.blocks
                for block in blocks:
                    held[block] = held.get(block, 0) | bit
            case BlockRemoved(medium=medium, blocks=blocks):
                for block in blocks:
                    left = replica.blocks.pop(block, 0) & ~_BITS[medium]
                    if left:
                        replica.blocks[block] = left
            case PromptNamed(keys=keys, blocks=blocks):
                self._learn(keys, blocks)

    def wanted(self, upstream: str) -> Subscribe:
        """What is to be heard of it next."""
        replica = self._replicas.get(upstream)
        return Subscribe() if replica is None else Subscribe(replica.epoch, replica.number)

    def heard(self, upstream: str, *, live: bool) -> None:
        """It is listened to again from where that ended, or no more."""
        if (replica := self._replicas.get(upstream)) is not None:
            replica.live = live

    def forget(self, upstream: str) -> None:
        self._replicas.pop(upstream, None)

    def _learn(self, keys: list[int], blocks: list[int]) -> None:
        """Text and tokens grow alike: a part of the text is the same part of the blocks."""
        compact, whole = array("Q", blocks), covered(len(keys))
        for place, key in enumerate(keys, 1):
            self._known[key] = (compact, len(blocks) * covered(place) // whole)
            self._known.move_to_end(key)
        while len(self._known) > MOST_KEYS:
            self._known.popitem(last=False)

    def _longest(self, keys: Sequence[int]) -> tuple[Sequence[int], int] | None:
        """The blocks of the longest text that is known, and how many of them are its own."""
        for key in reversed(keys):
            if (known := self._known.get(key)) is not None:
                self._known.move_to_end(key)
                return known
        return None

    def _run(self, replica: _Replica | None, blocks: Sequence[int], most: int) -> int:
        """Whoever holds a block holds all before it: the first one that is lacking is found by halves."""
        if replica is None:
            return 0
        low, high = 0, most
        while low < high:
            middle = (low + high) // 2
            if blocks[middle] in replica.blocks:
                low = middle + 1
            else:
                high = middle
        return low * replica.block
