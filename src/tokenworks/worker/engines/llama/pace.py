"""How many tokens fit into a step that prompts must not make longer than wanted."""

ENOUGH = 32
"""Tokens of a step from which on its speed tells how fast prompts are computed."""
WEIGHT = 0.1


class Pace:
    """`least` and `most` tokens of a step; `seconds` that it may take."""

    def __init__(self, least: int, most: int, seconds: float) -> None:
        self._least = least
        self._most = most
        self._seconds = seconds
        self._rate = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        if tokens >= ENOUGH and seconds > 0:
            rate = tokens / seconds
            self._rate = self._rate + WEIGHT * (rate - self._rate) if self._rate else rate

    @property
    def budget(self) -> int:
        return max(self._least, min(self._most, int(self._rate * self._seconds)))
