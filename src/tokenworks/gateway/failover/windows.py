"""What an upstream tells of a prompt that is too long for it, and whom it may fit. Pure."""

import re
from dataclasses import dataclass

_ABOVE = re.compile(r"> ?(\d+)")
_WINDOW = re.compile(
    r"maximum context length(?: is|:)? ?(\d+)"
    r"|model with (\d+) maximum context"
    r"|context (?:size|length) \((\d+)"
    r"|maximum number of tokens allowed \((\d+)"
    r"|must be <= ?(\d+)"
)
_SUM = re.compile(r"(\d+) ?\+ ?(\d+) ?>|Given: (\d+) `inputs` tokens and (\d+)")
_WANTED = re.compile(r"(?:resulted in|requested|contains|input|request|token count|too long:) \(?(\d+)")


@dataclass(frozen=True, slots=True)
class TooLong:
    """Tokens of the window that was too small, and tokens that it would have taken; None: nobody told."""

    window: int | None = None
    wanted: int | None = None

    def fits(self, window: int | None) -> bool | None:
        """Whether it fits such a window; None: nobody knows."""
        if window is None or (self.window is None and self.wanted is None):
            return None
        return window > (self.window or 0) and window >= (self.wanted or 0)

    def after(self, earlier: "TooLong") -> "TooLong":
        """What is known once it was too long for both."""
        return TooLong(_largest(self.window, earlier.window), _largest(self.wanted, earlier.wanted))


def told(message: str) -> TooLong:
    """In the words of any provider."""
    text = message.replace(",", "")
    window, wanted = _ABOVE.search(text) or _WINDOW.search(text), _SUM.search(text) or _WANTED.search(text)
    return TooLong(_sum(window), _sum(wanted))


def _sum(found: re.Match[str] | None) -> int | None:
    return None if found is None else sum(int(number) for number in found.groups() if number)


def _largest(*sizes: int | None) -> int | None:
    return max((size for size in sizes if size is not None), default=None)
