"""Finds where a JSON value ends in text that comes in pieces, without parsing or changing it."""

_NEVER = frozenset("<`")
"""Outside a text these cannot come: a closing marker did, before the value was whole. Other mistakes are passed on."""
_ENDS_SCALAR = frozenset(",]} \t\r\n")


class Value:
    """Fed from a value's first character on. `broken` when it ended before it was whole."""

    def __init__(self) -> None:
        self.broken = False
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._scalar = False

    def feed(self, text: str) -> int | None:
        """How many characters of `text` belong to the value, once it has ended; None when all do and more may come."""
        for at, char in enumerate(text):
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == '"':
                    self._in_string = False
                    if not self._depth:
                        return at + 1
            elif self._scalar and char in _ENDS_SCALAR:
                return at
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.broken = self._depth < 0
                    return at if self.broken else at + 1
            elif char in _NEVER:
                self.broken = True
                return at
            elif not self._depth:
                self._scalar = True
        return None
