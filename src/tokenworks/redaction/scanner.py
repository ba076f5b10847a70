"""Finds what rules describe in a text that comes in pieces, and says what of it is decided.

Leftmost first; of those that begin at the same place the longest, then the first rule. What is found is the same
however the text was cut: nothing is decided while more text could still change it, and nothing else is held back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tokenworks.redaction.entities import LONGEST, Rule
from tokenworks.redaction.patterns import compiled, ending_in, one_of

Replace = Callable[[str, str], str | None]
"""(entity, what was found) -> what stands in its place; None: the text ends before it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """`length` characters of the text, in order: as they are, or with `new` in their place."""

    length: int
    new: str | None = None


class Rules:
    """Rules made ready, to be shared by all scanners."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        patterns = [rule.pattern for rule in rules]
        self.rules = tuple(rules)
        self.any = compiled(one_of(patterns), together=True)
        self.pending = compiled(ending_in(patterns), together=True)


class Scanner:
    """Of one text. `feed` any number of times, then `close`; after `stopped` both tell nothing more."""

    def __init__(self, rules: Rules, replace: Replace) -> None:
        self.stopped = False
        self._rules = rules
        self._replace = replace
        self._data = b""
        self._at = 0
        """Bytes of it that are over: the character before what is still open, which borders of words depend on."""

    def feed(self, text: str) -> list[Piece]:
        self._data += text.encode("utf-8", "surrogatepass")
        return self._decided(final=False)

    def close(self) -> list[Piece]:
        return self._decided(final=True)

    @property
    def held(self) -> int:
        """Bytes that are not decided yet."""
        return len(self._data) - self._at

    def _decided(self, *, final: bool) -> list[Piece]:
        pieces: list[Piece] = []
        data, at = self._data, self._at
        hits = _Hits(self._rules.rules, data)
        while not self.stopped and at < len(data):
            cut = len(data) if final else self._cut(data, at)
            hit = hits.first(at, cut) if self._rules.any.search(data, at) is not None else None
            start, end, entity = hit or (cut, cut, "")
            if start > at:
                pieces.append(Piece(len(_text(data[at:start]))))
            if hit is None:
                at = cut
                if final or self._cut(data, at) == at:
                    break
                continue
            found = _text(data[start:end])
            new = self._replace(entity, found)
            if new is None:
                self.stopped = True
            else:
                pieces.append(Piece(len(found), None if new == found else new))
            at = end
        keep = _back(data, at)
        self._data, self._at = data[keep:], at - keep
        return pieces

    def _cut(self, data: bytes, at: int) -> int:
        """Where the first match may begin that more text could change; as long as it may be, it is decided."""
        cut: int = self._rules.pending.search(data, at).start()
        return _next(data, len(data) - LONGEST - 1) if len(data) - cut > LONGEST else cut


class _Hits:
    """The next match of each rule, looked for once."""

    def __init__(self, rules: Sequence[Rule], data: bytes) -> None:
        self._rules = rules
        self._data = data
        self._next: list[tuple[int, int] | None] = [(-1, -1)] * len(rules)
        self._cuts = [0] * len(rules)

    def first(self, at: int, cut: int) -> tuple[int, int, str] | None:
        """Of those that begin from `at` on, and before `cut`."""
        best: tuple[int, int, str] | None = None
        for number, rule in enumerate(self._rules):
            known = self._next[number]
            if (known is not None and known[0] < at) or (known is None and self._cuts[number] < cut):
                known = self._next[number] = self._find(rule, at, cut)
                self._cuts[number] = cut
            if known is not None and (best is None or (known[0], -known[1]) < (best[0], -best[1])):
                best = (*known, rule.entity)
        return best

    def _find(self, rule: Rule, at: int, cut: int) -> tuple[int, int] | None:
        data, regex = self._data, rule.pattern.regex
        while (match := regex.search(data, at)) is not None and match.start() < cut:
            start, end = match.span()
            if end - start > LONGEST:
                start, end = _bounded(regex, data, start)
            if (length := self._checked(rule, start, end)) > 0:
                return (start, start + length) if start < cut else None
            at = end if end == start else _next(data, start)
        return None

    def _checked(self, rule: Rule, start: int, end: int) -> int:
        """Bytes of it that are really one."""
        if end == start or rule.check is None:
            return end - start
        found = _text(self._data[start:end])
        return len(found[: rule.check(found)].encode("utf-8", "surrogatepass"))


def _bounded(regex: Any, data: bytes, at: int) -> tuple[int, int]:
    """The first match from `at` on that is not too long, if it begins within LONGEST; or where to look next, twice.
    What lies further away than a match can be long is not looked at: the whole is linear in the text."""
    before, end = _back(data, at), _next(data, at + LONGEST)
    while at < end:
        match = regex.search(data[before : at + 2 * LONGEST], at - before)
        if match is None or (start := before + match.start()) >= end:
            return end, end
        if match.end() - match.start() <= LONGEST:
            return start, before + match.end()
        window = _back(data, start)
        match = regex.match(data[window : start + LONGEST], start - window)
        if match is not None:
            return start, window + match.end()
        at = _next(data, start)
        before = window
    return end, end


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _next(data: bytes, at: int) -> int:
    """The character after the one at `at`."""
    at += 1
    while at < len(data) and data[at] & 0xC0 == 0x80:
        at += 1
    return at


def _back(data: bytes, at: int) -> int:
    """The character before the one at `at`."""
    at = max(at - 1, 0)
    while at and data[at] & 0xC0 == 0x80:
        at -= 1
    return at
