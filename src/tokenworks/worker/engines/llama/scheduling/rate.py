"""How fast the engine is, as measured: for the token budget of a step and for Retry-After."""

HALF_LIFE = 20.0
"""Steps; older ones count half."""


class Rate:
    """Tokens per second over the last steps. `fallback` until the first one."""

    def __init__(self, fallback: float = 100.0) -> None:
        self._tokens = 0.0
        self._seconds = 0.0
        self._fallback = fallback

    def add(self, tokens: int, seconds: float) -> None:
        keep = 1 - 1 / HALF_LIFE
        self._tokens = self._tokens * keep + tokens
        self._seconds = self._seconds * keep + seconds

    @property
    def value(self) -> float:
        return self._tokens / self._seconds if self._seconds > 0 else self._fallback

    def seconds(self, tokens: float) -> float:
        return tokens / max(self.value, 1e-9)
