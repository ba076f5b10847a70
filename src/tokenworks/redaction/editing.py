"""Texts and JSON that grow, with what rules find in them replaced."""

import json
import re
from collections import deque
from typing import Protocol

from tokenworks.redaction.scanner import Piece, Replace, Rules, Scanner

_NUMBER = re.compile(r"-?(?:[0-9][0-9.eE+-]*)?")
_BETWEEN = re.compile(r'[^"0-9-]+')
_UNIT = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\[^u]|[^\"\\]", re.DOTALL
)
_HIGH = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}")
_ESCAPE = 6
"""Characters of the longest escape."""


class Editor(Protocol):
    """After `stopped` nothing more comes out."""

    @property
    def stopped(self) -> bool: ...

    def feed(self, text: str) -> str: ...

    def close(self) -> str: ...


class TextEditor:
    def __init__(self, rules: Rules, replace: Replace) -> None:
        self._scanner = Scanner(rules, replace)
        self._open = ""

    @property
    def stopped(self) -> bool:
        return self._scanner.stopped

    def feed(self, text: str) -> str:
        self._open += text
        return self._edited(self._scanner.feed(text))

    def close(self) -> str:
        return self._edited(self._scanner.close())

    def _edited(self, pieces: list[Piece]) -> str:
        out, at = [], 0
        for piece in pieces:
            out.append(self._open[at : at + piece.length] if piece.new is None else piece.new)
            at += piece.length
        self._open = self._open[at:]
        return "".join(out)


class JsonEditor:
    """Of the strings in a JSON text, names of members too, as they read without their escapes; a number is taken for a
    text of its own, and becomes a string where it is replaced. Everything else passes as it was written."""

    def __init__(self, rules: Rules, replace: Replace) -> None:
        self.stopped = False
        self._rules = rules
        self._replace = replace
        self._open = ""
        self._string: Scanner | None = None
        self._units: deque[str] = deque()
        """What stands for each character of the string that is not decided yet."""

    def feed(self, text: str) -> str:
        self._open += text
        return self._edited(final=False)

    def close(self) -> str:
        out = self._edited(final=True)
        return out + (self._written(self._string.close()) if self._string is not None else "")

    def _edited(self, *, final: bool) -> str:
        out: list[str] = []
        while self._open and not self.stopped:
            before = self._open
            out.append(self._outside(final) if self._string is None else self._inside(self._string, final))
            if self._open == before:
                break
        return "".join(out)

    def _outside(self, final: bool) -> str:
        text = self._open
        if text[0] == '"':
            self._string = Scanner(self._rules, self._replace)
            self._open = text[1:]
            return '"'
        if (between := _BETWEEN.match(text)) is not None:
            self._open = text[between.end() :]
            return between[0]
        number = _NUMBER.match(text)
        assert number is not None  # noqa: S101 -- it matches anything
        if number.end() == len(text) and not final:
            return ""
        self._open = text[number.end() :]
        editor = TextEditor(self._rules, self._replace)
        new = editor.feed(number[0]) + editor.close()
        self.stopped = editor.stopped
        return new if new == number[0] or self.stopped else json.dumps(new, ensure_ascii=False)

    def _inside(self, scanner: Scanner, final: bool) -> str:
        text, at = self._open, 0
        decoded: list[str] = []
        while at < len(text) and text[at] != '"':
            unit = self._unit(text, at, final)
            if not unit:
                break
            decoded.append(_decoded(unit))
            self._units.append(unit)
            at += len(unit)
        out = self._written(scanner.feed("".join(decoded)))
        if text[at : at + 1] == '"' and not self.stopped:
            out += self._written(scanner.close())
            self._string = None
            if not self.stopped:
                out += '"'
            at += 1
        self._open = text[at:]
        return out

    def _unit(self, text: str, at: int, final: bool) -> str:
        """What stands for the next character; "" when that is not all there yet."""
        unit = _UNIT.match(text, at)
        left = len(text) - at
        if (
            not final
            and left < 2 * _ESCAPE
            and _HIGH.match(text, at)
            and text[at + _ESCAPE : at + _ESCAPE + 1] in ("", "\\")
        ):
            return unit[0] if unit is not None and len(unit[0]) > _ESCAPE else ""
        if unit is not None:
            return unit[0]
        return "" if left < _ESCAPE and not final else text[at]

    def _written(self, pieces: list[Piece]) -> str:
        if self._string is not None:
            self.stopped = self.stopped or self._string.stopped
        out = []
        for piece in pieces:
            raw = [self._units.popleft() for _ in range(piece.length)]
            out += raw if piece.new is None else [json.dumps(piece.new, ensure_ascii=False)[1:-1]]
        return "".join(out)


def _decoded(unit: str) -> str:
    if len(unit) == 1:
        return unit
    try:
        found: str = json.loads(f'"{unit}"')
    except ValueError:  # no escape of JSON
        return unit[1]
    return found


def edited(editor: Editor, text: str) -> str:
    """All of a text at once."""
    return editor.feed(text) + editor.close()
