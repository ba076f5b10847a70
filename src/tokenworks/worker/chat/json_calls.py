"""Calls written as JSON: `{"name": ..., "arguments": {...}}`, one or a list. The arguments' text is passed on as it is
written, while it is written.
"""

from collections.abc import Collection
from typing import Any

import msgspec

from tokenworks.worker.chat.body import Body
from tokenworks.worker.chat.scanner import Value

ARGUMENTS = ("arguments", "parameters")
KEYS = (*ARGUMENTS, "name", "function", "id", "type")
_DECODE = msgspec.json.decode


class JSONCalls(Body):
    """With `known`, only a call of one of these functions, with its arguments, is one: nothing but its content tells it
    from an answer in JSON."""

    def __init__(self, markers: tuple[str, ...] = (), known: Collection[str] | None = None) -> None:
        super().__init__(markers)
        self._known = known
        self._in_list = False
        self._new_call()

    def _new_call(self) -> None:
        self._name: str | None = None
        self._id: str | None = None
        self._early: str | None = None
        """Arguments that came before the name."""
        self._depth = 0

    def first(self) -> bool:
        if not self.skip_space():
            return False
        if self.text[0] == "[" and not self._in_list:
            self._in_list = True
            self.take(1)
            return True
        if self.text[0] != "{":
            return self.give_up()
        self.take(1)
        self._new_call()
        self._depth = 1
        self.step = self._key
        return True

    def _key(self) -> bool:
        if not self.skip_space(","):
            return False
        if self.text[0] == "}":
            self.take(1)
            self._depth -= 1
            if not self._depth:
                return self._object_ended()
            return True
        if self.text[0] != '"':
            return self.give_up()
        self._scan: Value = Value()
        self._kept = ""
        self._then = self._colon
        self.step = self._value
        return True

    def _colon(self) -> bool:
        if not self.skip_space():
            return False
        if self.text[0] != ":":
            return self.give_up()
        self.take(1)
        self._current = self._kept_value()
        if self._known is not None and self._current not in KEYS:
            return self.give_up()
        # Known to be a call before its arguments begin, so that an engine can hold the model to them.
        if self._current in ARGUMENTS and self._name is not None and not self._begin():
            return self.give_up()
        self.step = self._value_begins
        return True

    def _value_begins(self) -> bool:
        if not self.skip_space():
            return False
        if self._current == "function" and self.text[0] == "{":
            self.take(1)
            self._depth += 1
            self.step = self._key
            return True
        self._scan, self._kept, self._then = Value(), "", self._value_ended
        streams = self._current in ARGUMENTS and self.text[0] not in '"n'
        self.step = self._arguments if streams and self._begun else self._value
        return True

    def _value(self) -> bool:
        """A value that is kept until it has ended."""
        if not self.text:
            return False
        length = self._scan.feed(self.text)
        self._kept += self.take(len(self.text) if length is None else length)
        if self._scan.broken:
            return self.give_up()
        if length is not None:
            self.step = self._then
        return length is not None

    def _arguments(self) -> bool:
        """Arguments that are passed on as they come."""
        if not self.text:
            return False
        length = self._scan.feed(self.text)
        self.tell(self.take(len(self.text) if length is None else length))
        if self._scan.broken:
            return self.give_up()
        if length is not None:
            self.step = self._key
        return length is not None

    def _value_ended(self) -> bool:
        self.step = self._key
        value = self._kept_value()
        if self._current in ARGUMENTS:
            text = value if isinstance(value, str) else "{}" if value is None else self._kept
            if self._begun:
                self.tell(text)
            else:
                self._early = text
        elif self._current in ("name", "function") and isinstance(value, str):
            self._name = value
        elif self._current == "id" and isinstance(value, str):
            self._id = value
        return True

    def _kept_value(self) -> Any:
        """None also for what is no JSON: a name cannot be read from it."""
        try:
            return _DECODE(self._kept)
        except msgspec.DecodeError:
            return None

    def _begin(self) -> bool:
        """False when it is no call. A second object of arguments is none of the first call's."""
        if self._begun or self._name is None or (self._known is not None and self._name not in self._known):
            return False
        self.begin(self._name, self._id)
        return True

    def _object_ended(self) -> bool:
        if not self._begun:
            if (self._known is not None and self._early is None) or not self._begin():
                return self.give_up()
            self.tell(self._early or "")
        self.end()
        self.step = self._next
        return True

    def _next(self) -> bool:
        """Another call, the end of the list, or of all."""
        rest = self.text.lstrip(" \t\r\n,;")
        if not rest:
            return False
        self.step = self.after
        if rest[0] == "{":
            self.text = rest
            self.step = self.first
        elif rest[0] == "]" and self._in_list:
            self.text, self._in_list = rest[1:], False
        return True
