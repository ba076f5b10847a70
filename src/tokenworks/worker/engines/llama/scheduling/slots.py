"""Which slots are used. Those of running sequences are kept side by side: a kernel computes each row of neighbours by
itself, and reads all weights again for it."""

from itertools import pairwise


class Slots:
    def __init__(self, count: int) -> None:
        self.count = count
        self._used: list[bool] = [False] * count
        self.free = count

    def take(self) -> int:
        """The lowest free one between used ones, else one beside them. ValueError when none is free."""
        if not self.free:
            raise ValueError("no slot is free")
        rows = self._rows()
        if not rows:
            slot = 0
        elif len(rows) > 1:
            slot = rows[0][1]
        else:
            begin, end = rows[0]
            slot = begin - 1 if begin > 0 else end
        self._used[slot] = True
        self.free -= 1
        return slot

    def give(self, slot: int) -> None:
        self._used[slot] = False
        self.free += 1

    def move(self, used: int, free: int) -> None:
        self._used[used], self._used[free] = False, True

    def closing(self) -> tuple[int, int]:
        """(used, free): of two or more rows, a move that brings them nearer to being one.

        It empties the first or the last row or fills the smallest gap, whichever takes least.
        """
        rows = self._rows()
        (first, first_end), (last, last_end) = rows[0], rows[-1]
        gap, begin = min((after[0] - before[1], before[1]) for before, after in pairwise(rows))
        begins, ends = first_end - first, last_end - last
        if begins <= min(ends, gap):
            return first, rows[1][0] - 1
        if ends <= gap:
            return last_end - 1, rows[-2][1]
        return (first, begin + gap - 1) if begins <= ends else (last_end - 1, begin)

    def _rows(self) -> list[tuple[int, int]]:
        """Used neighbours: [begin, end) of each row."""
        rows: list[tuple[int, int]] = []
        begin = -1
        for slot, used in enumerate([*self._used, False]):
            if used and begin < 0:
                begin = slot
            elif not used and begin >= 0:
                rows.append((begin, slot))
                begin = -1
        return rows
