"""Which slots are free. The lowest one is given first: kernels batch neighbouring slots together."""

import heapq


class Slots:
    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count))

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self) -> int:
        """ValueError when none is free."""
        if not self._free:
            raise ValueError("no slot is free")
        return heapq.heappop(self._free)

    def lowest(self) -> int:
        """The one that `take` would give; `count` when none is free."""
        return self._free[0] if self._free else self.count

    def give(self, slot: int) -> None:
        heapq.heappush(self._free, slot)
