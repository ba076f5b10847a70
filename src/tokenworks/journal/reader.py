"""Read back what a journal holds, in batches that control takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tokenworks.journal.framing import FrameError, frames
from tokenworks.journal.segment import HEADER_BYTES, Segment

BATCH_RECORDS = 1_000
BATCH_BYTES = 256 * 1024
"""More than the largest record, so that every batch makes progress."""


@dataclass(frozen=True, slots=True)
class Batch:
    """`count` records from number `first` on, as frames."""

    first: int
    count: int
    data: bytes

    @property
    def end(self) -> int:
        return self.first + self.count


class Cursor:
    """Remembers where in its file the next batch starts, so that reading on costs no search."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._position = 0
        self._offset = 0

    def read(self, segments: Sequence[Segment], position: int, until: int) -> Batch | None:
        """The next batch at or after `position`, before `until`; None when there is none.

        FrameError when the file has changed under us since the journal was opened.
        """
        segment = next((segment for segment in segments if segment.end > position), None)
        if segment is None:
            return None
        position = max(position, segment.first)
        wanted = min(BATCH_RECORDS, min(segment.end, until) - position)
        if wanted <= 0:
            return None
        offset = self._find(segment, position)
        with segment.path.open("rb") as file:
            file.seek(offset)
            data = file.read(BATCH_BYTES)
        ends = [end for _, end in islice(frames(data), wanted)]
        if not ends:
            raise FrameError(f"{segment.path}: record {position} at byte {offset} is damaged")
        self._path, self._position, self._offset = segment.path, position + len(ends), offset + ends[-1]
        return Batch(position, len(ends), data[: ends[-1]])

    def _find(self, segment: Segment, position: int) -> int:
        if segment.path == self._path and position == self._position:
            return self._offset
        before = islice(frames(segment.path.read_bytes(), HEADER_BYTES), position - segment.first)
        return max((end for _, end in before), default=HEADER_BYTES)
