"""Calls after a marker of their own, as `NAME[ARGS]{...}`, with `[CALL_ID]ID` between, or as a list in JSON."""

import re

from tokenworks.worker.chat.body import Body, Part
from tokenworks.worker.chat.json_calls import JSONCalls
from tokenworks.worker.chat.scanner import Value

CALL_ID, ARGS = "[CALL_ID]", "[ARGS]"
_HEAD = re.compile(
    r"\s{0,32}(?P<name>[^\s\[\]{}]{1,256}?)\s{0,32}"
    r"(?:\[CALL_ID\]\s{0,32}(?P<id>[^\s\[\]{}]{1,64})\s{0,32})?(?:\[ARGS\])?\s{0,32}(?=\{)"
)
LONGEST_HEAD = 512


class NamedCall(Body):
    def __init__(self) -> None:
        super().__init__()
        self._inner: Body | None = None

    def first(self) -> bool:
        if self._inner is None and not (rest := self.text.lstrip()):
            return False
        if self._inner is None and rest[0] not in "[{":
            return self._head()
        self._inner = self._inner or JSONCalls()
        self._parts += self._inner.feed(self.text)
        self.done = self._inner.done
        self.text = self._inner.text if self.done else ""
        return False

    def _head(self) -> bool:
        head = _HEAD.match(self.text)
        if head is None:
            return self.give_up() if "{" in self.text or len(self.text) > LONGEST_HEAD else False
        self.take(head.end())
        self.begin(head["name"], head["id"])
        self._scan = Value()
        self.step = self._object
        return True

    def _object(self) -> bool:
        if not self.text:
            return False
        length = self._scan.feed(self.text)
        self.tell(self.take(len(self.text) if length is None else length))
        if length is None:
            return False
        self.end()
        self.done = True
        return False

    def close(self) -> list[Part]:
        if self._inner is None or self.done:
            return super().close()
        self.done = True
        return self._inner.close()
