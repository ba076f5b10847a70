"""What an engine holds, told to routers: an ordered log of changes, of which the last ones are remembered.

The engine's thread tells; subscribers read in the event loop. When nobody listens, telling costs a few hashes for
tokens that took a thousand times longer to compute. Whoever reads too slowly, or comes for the first time, is told all.
"""

import asyncio
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice

from tokenworks.protocols.worker.blocks import BLOCK
from tokenworks.protocols.worker.kv import AllBlocksCleared, BlockRemoved, BlockStored, KVEvent, Medium, PromptNamed

MOST = 65_536
"""Blocks that remembered changes name, and that remembered prompts consist of."""
AT_ONCE = 4_096
"""Blocks of one event of those that tell everything."""


class KVEvents:
    """`stored`, `removed` and `prompt` are called in the engine's thread, everything else in the event loop."""

    def __init__(self, most: int = MOST) -> None:
        self.epoch = secrets.token_hex(8)
        self.number = 0
        self._most = most
        self._lock = threading.Lock()
        self._log: deque[KVEvent] = deque()
        self._logged = 0
        self._prompts: deque[PromptNamed] = deque()
        self._named = 0
        self._held: dict[Medium, dict[int, int]] = {"slot": {}, "ram": {}, "disk": {}}
        """How many times each block is there: several sequences may begin alike."""
        self._waiting: set[Callable[[], object]] = set()
        self._closed = False

    def stored(self, medium: Medium, blocks: Sequence[int], parent: int | None = None) -> None:
        with self._lock:
            held = self._held[medium]
            new = [block for block in blocks if block not in held]
            for block in blocks:
                held[block] = held.get(block, 0) + 1
            if new:
                self._append(BlockStored(self.number + 1, medium, new, parent if new[0] == blocks[0] else None))

    def removed(self, medium: Medium, blocks: Sequence[int]) -> None:
        with self._lock:
            held, gone = self._held[medium], []
            for block in blocks:
                left = held[block] - 1
                if left:
                    held[block] = left
                else:
                    del held[block]
                    gone.append(block)
            if gone:
                self._append(BlockRemoved(self.number + 1, medium, gone))

    def prompt(self, keys: Sequence[int], blocks: Sequence[int]) -> None:
        with self._lock:
            event = PromptNamed(self.number + 1, list(keys), list(blocks))
            self._prompts.append(event)
            self._named += _size(event)
            while self._named > self._most:
                self._named -= _size(self._prompts.popleft())
            self._append(event)

    def _append(self, event: KVEvent) -> None:
        self.number += 1
        self._log.append(event)
        self._logged += _size(event)
        while self._logged > self._most:
            self._logged -= _size(self._log.popleft())
        for wake in self._waiting:
            wake()
        self._waiting.clear()

    async def follow(self, epoch: str = "", after: int = -1) -> AsyncIterator[list[KVEvent]]:
        """Until `close`."""
        loop, there = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(there.set)

        if epoch != self.epoch:
            after = -1
        try:
            while not self._closed:
                with self._lock:
                    events = self._since(after)
                    after = self.number
                    if not events:
                        there.clear()
                        self._waiting.add(wake)
                if events:
                    yield events
                else:
                    await there.wait()
        finally:
            with self._lock:
                self._waiting.discard(wake)

    def close(self) -> None:
        """Whoever follows hears no more."""
        with self._lock:
            self._closed = True
            for wake in self._waiting:
                wake()
            self._waiting.clear()

    def _since(self, after: int) -> list[KVEvent]:
        first = self.number - len(self._log) + 1
        if first - 1 <= after <= self.number:
            return list(islice(self._log, after + 1 - first, None))
        return self._everything()

    def _everything(self) -> list[KVEvent]:
        events: list[KVEvent] = [AllBlocksCleared(self.number, self.epoch, BLOCK)]
        for medium, held in self._held.items():
            blocks = list(held)
            for begin in range(0, len(blocks), AT_ONCE):
                events.append(BlockStored(self.number, medium, blocks[begin : begin + AT_ONCE]))
        return events + [PromptNamed(self.number, each.keys, each.blocks) for each in self._prompts]


def _size(event: KVEvent) -> int:
    match event:
        case PromptNamed(keys=keys, blocks=blocks):
            return 1 + len(keys) + len(blocks)
        case AllBlocksCleared():
            return 1
    return 1 + len(event.blocks)
