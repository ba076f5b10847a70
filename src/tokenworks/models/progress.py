"""How a caller hears of progress: a function of (bytes done, bytes in all or None). Nothing is drawn here."""

from collections.abc import Callable

Progress = Callable[[int, int | None], None]


def silent(done: int, total: int | None) -> None:
    """The default: a library user asked for no progress."""
