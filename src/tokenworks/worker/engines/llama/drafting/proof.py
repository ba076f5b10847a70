"""Whether steps with guesses really gave more tokens per second, by how many sequences ran.

What was expected of them is made of averages; where it was wrong for a while, guesses rest."""

from dataclasses import dataclass

TRIAL = 8
"""Steps after which it is judged."""
WEIGHT = 0.1
REST, LONGEST_REST = 256, 16384
"""Steps for which they rest then; twice as many each time, until a trial succeeds."""


@dataclass(slots=True)
class _Record:
    gain: float = 1.0
    steps: int = 0
    rest: int = REST
    left: int = 0


class Proof:
    def __init__(self) -> None:
        self._records: dict[int, _Record] = {}

    def rests(self, sequences: int) -> bool:
        """Asked once a step."""
        record = self._records.get(sequences)
        if record is None or not record.left:
            return False
        record.left -= 1
        return True

    def add(self, sequences: int, gain: float) -> None:
        """A step with guesses gave so many times the tokens per second of one without."""
        record = self._records.setdefault(sequences, _Record())
        record.steps += 1
        record.gain += (gain - record.gain) * max(WEIGHT, 1 / record.steps)
        if record.steps < TRIAL:
            return
        if record.gain < 1:
            record.left, record.rest = record.rest, min(2 * record.rest, LONGEST_REST)
            record.steps = 0
        elif record.steps == 4 * TRIAL:
            record.rest = REST
