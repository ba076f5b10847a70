"""Regular expressions that run in linear time, and that can tell whether a text may end in the middle of a match.

A pattern is read by the parser of Python's `re`, and written anew twice in RE2's syntax: once as it is, and once as the
pattern of everything that more text could still make a match of. The second, anchored at the end of a text that still
grows, finds the first place from which on nothing may be passed on yet. What no automaton can do (references, look
around) is refused.
"""

import re
import warnings
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import re2

Node = tuple[Any, Any]

LONGEST_PATTERN = 1_000
"""Characters."""
MOST_INSTRUCTIONS = 10_000
"""Of the automaton: what one character of text may cost is bounded by it."""
MEMORY = 32 * 1024 * 1024

_CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
}
_ANCHORS = {
    op.AT_BEGINNING: r"(?m:^)",
    op.AT_BEGINNING_STRING: r"\A",
    op.AT_END: r"(?m:$)",
    op.AT_END_STRING: r"\z",
    op.AT_BOUNDARY: r"\b",
    op.AT_NON_BOUNDARY: r"\B",
}
_UNABLE = {
    op.GROUPREF: "refers back to a group",
    op.GROUPREF_EXISTS: "refers back to a group",
    op.ASSERT: "looks around",
    op.ASSERT_NOT: "looks around",
    op.ATOMIC_GROUP: "has an atomic group",
    op.POSSESSIVE_REPEAT: "repeats possessively",
}
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT)
_NOTHING = r"[^\x00-\x{10FFFF}]"
"""Matches no text at all."""


class Pattern:
    """`source` in RE2's syntax; `pending` matches every text that is a beginning of a match and not known to be all of
    it. `^` and `$` are those of lines."""

    def __init__(self, text: str) -> None:
        """ValueError with the reason, which does not repeat the pattern."""
        if len(text) > LONGEST_PATTERN:
            raise ValueError(f"is longer than {LONGEST_PATTERN} characters")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = parser.parse(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"is no regular expression: {error}") from None
        if tree.getwidth()[0] == 0:
            raise ValueError("matches the empty text; make it match something")
        flags = tree.state.flags
        try:
            self.source, self.pending = _sequence(list(tree), flags)
        except RecursionError:
            raise ValueError("is nested too deeply") from None
        self.regex = compiled(self.source)
        compiled(ending_in([self]), together=True)


def compiled(source: str, *, together: bool = False) -> Any:
    """For texts as bytes in UTF-8. ValueError when RE2 does not take it. `together`: of patterns that were taken."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MEMORY
    try:
        regex = re2.compile(source, options)
    except re2.error as error:
        raise ValueError(f"cannot be run in linear time: {_said(error)}") from None
    if not together and regex.programsize > MOST_INSTRUCTIONS:
        raise ValueError("repeats too much; make its repetitions shorter")
    return regex


def ending_in(patterns: list[Pattern]) -> str:
    """Finds the first place in a text that still grows where a match may be beginning: its end, if there is none."""
    return "(?:" + "|".join([*(each.pending for each in patterns), ""]) + r")\z"


def one_of(patterns: list[Pattern]) -> str:
    return "|".join(each.source for each in patterns) or _NOTHING


def _said(error: Exception) -> str:
    told = error.args[0] if error.args else ""
    return told.decode(errors="replace") if isinstance(told, bytes) else str(told)


def _sequence(nodes: list[Node], flags: int) -> tuple[str, str]:
    """(as it is, what may become it): of `ab`, what may become `a`, or `a` and what may become `b`."""
    source, pending = "", _NOTHING
    for node in reversed(nodes):
        own, beginning = _node(node, flags)
        pending = beginning if not source else f"(?:{beginning}|{own}{pending})"
        source = own + source
    return source, pending


def _node(node: Node, flags: int) -> tuple[str, str]:
    kind, value = node
    if kind in _UNABLE:
        raise ValueError(f"{_UNABLE[kind]}, which cannot be done in linear time")
    if kind is op.AT:
        return _ANCHORS[value], ""  # whether it holds depends on what comes
    if kind in _REPEATS:
        return _repeat(value, flags, lazy=kind is op.MIN_REPEAT)
    if kind is op.SUBPATTERN:
        _, added, removed, inner = value
        source, pending = _sequence(list(inner), (flags | added) & ~removed)
        return f"(?:{source})", pending
    if kind is op.BRANCH:
        branches = [_sequence(list(branch), flags) for branch in value[1]]
        return f"(?:{'|'.join(own for own, _ in branches)})", f"(?:{'|'.join(pending for _, pending in branches)})"
    return _one(kind, value, flags), ""


def _repeat(value: Any, flags: int, *, lazy: bool) -> tuple[str, str]:
    least, most, inner = value
    source, pending = _sequence(list(inner), flags)
    unbounded = most is op.MAXREPEAT
    bounds = f"{{{least},}}" if unbounded else f"{{{least},{most}}}"
    before = "*" if unbounded else f"{{0,{max(most - 1, 0)}}}"
    return f"(?:{source}){bounds}{'?' if lazy else ''}", f"(?:{source}){before}{pending}" if most else _NOTHING


def _one(kind: Any, value: Any, flags: int) -> str:
    """One character."""
    if kind is op.ANY:
        return "(?s:.)" if flags & re.DOTALL else "."
    if kind is op.LITERAL:
        found = _char(value)
    elif kind is op.NOT_LITERAL:
        found = f"[^{_char(value)}]"
    elif kind is op.IN:
        negated = value[0][0] is op.NEGATE
        found = f"[{'^' if negated else ''}{''.join(map(_member, value[negated:]))}]"
    else:
        raise ValueError(f"has what is not supported: {str(kind).lower()}")
    return f"(?i:{found})" if flags & re.IGNORECASE else found


def _member(node: Node) -> str:
    kind, value = node
    if kind is op.RANGE:
        return f"{_char(value[0])}-{_char(value[1])}"
    return _CATEGORIES[value] if kind is op.CATEGORY else _char(value)


def _char(code: int) -> str:
    char = chr(code)
    return char if char.isalnum() and char.isascii() else f"\\x{{{code:X}}}"
