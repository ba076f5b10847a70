"""Equal requests at once: one asks, the others wait for its answer. Equal by the key of the cache: one tenant's."""

import asyncio
from dataclasses import dataclass
from enum import Enum

from tokenworks.gateway.caching.stores import Kept


@dataclass(frozen=True, slots=True)
class Found:
    """An answer that may be given again. `similarity` to what was asked; 1.0: the same was asked."""

    kept: Kept
    similarity: float = 1.0


class Outcome(Enum):
    FAILED = "failed"
    """Or its caller left: another one asks."""
    UNIQUE = "unique"
    """An answer that is not given again: everybody asks for himself."""


class Flights:
    """Of one gateway."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[Found | Outcome]] = {}

    async def first(self, key: str, patience: float) -> tuple[bool, Found | None]:
        """(True, None): this one asks for all, and must `land`. Otherwise what another one was answered, or None once
        it is better to ask, too: that cannot be given again, or took more than `patience` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while (running := self._running.get(key)) is not None:
            done, _ = await asyncio.wait({running}, timeout=max(deadline - loop.time(), 0.0))
            if not done:
                return False, None
            outcome = running.result()
            if outcome is not Outcome.FAILED:
                return False, outcome if isinstance(outcome, Found) else None
        self._running[key] = loop.create_future()
        return True, None

    def land(self, key: str, outcome: Found | Outcome) -> None:
        self._running.pop(key).set_result(outcome)

    def __len__(self) -> int:
        return len(self._running)
