"""What stands between the markers of a tool call: the common ground of the ways in which models write it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Begin:
    """A call begins. `id` where the model gives one."""

    name: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Arguments:
    """A part of its arguments."""

    text: str


@dataclass(frozen=True, slots=True)
class End:
    """Of a call: nothing is added to it any more."""


@dataclass(frozen=True, slots=True)
class NoCall:
    """What looked like a call is text."""

    text: str


Part = Begin | Arguments | End | NoCall


class Body(ABC):
    """Fed with what follows the opening marker, in any pieces. `step` takes what it can from the front of `text`."""

    def __init__(self, markers: tuple[str, ...] = (), taken: str = "") -> None:
        """`markers` may close it; `taken` is what was read of it before."""
        self.markers = markers
        self.text = ""
        """Not yet taken. When `done`, it is what follows the call."""
        self.done = False
        self.step: Callable[[], bool] = self.first
        """Takes one thing from `text`; False: it needs more of it first."""
        self._parts: list[Part] = []
        self._raw = taken
        self._begun = False
        self._told = False
        self._ended = False

    @abstractmethod
    def first(self) -> bool:
        """The first step."""

    def feed(self, text: str) -> list[Part]:
        self.text += text
        while not self.done and self.step():
            pass
        return self._taken()

    def close(self) -> list[Part]:
        """The model stopped. What was told of a call stays; what was not yet a call is text."""
        if not (self.done or self._begun or self._ended):
            self._parts.append(NoCall(self._raw + self.text))
        self.text = self.text if self.done else ""
        self.done = True
        return self._taken()

    def _taken(self) -> list[Part]:
        parts, self._parts = self._parts, []
        return parts

    def take(self, length: int) -> str:
        taken, self.text = self.text[:length], self.text[length:]
        if not self._begun:
            self._raw += taken
            self._ended = False
        return taken

    def skip_space(self, more: str = "") -> bool:
        """White space and the characters in `more`; False when nothing else is there yet."""
        rest = self.text.lstrip(" \t\r\n" + more)
        self.take(len(self.text) - len(rest))
        return bool(rest)

    def begin(self, name: str, id: str | None = None) -> None:
        self._parts.append(Begin(name, id))
        self._begun, self._told = True, False

    def tell(self, text: str) -> None:
        """A part of the arguments."""
        if text:
            self._parts.append(Arguments(text))
            self._told = True

    def end(self) -> None:
        """Of the call. One without arguments has an empty object."""
        if not self._told:
            self.tell("{}")
        self._parts.append(End())
        self._begun, self._ended, self._raw = False, True, ""

    def give_up(self) -> bool:
        """What came is not how calls are written: it is text, or comes after the call that was told."""
        if self._begun:
            self.end()
            self.step = self.after
            return True
        self._parts.append(NoCall(self._raw))
        self.done = True
        return False

    def after(self) -> bool:
        """A closing marker is taken, with the braces too many that small models put before it; small models also forget
        it, so what is anything else follows the call."""
        self._ended = True
        self.text = self.text.lstrip(" \t\r\n}]")
        if not self.text or any(marker.startswith(self.text) and marker != self.text for marker in self.markers):
            return False
        for marker in self.markers:
            if self.text.startswith(marker):
                self.text = self.text[len(marker) :]
                break
        self.done = True
        return False
