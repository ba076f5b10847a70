"""Calls as `call:NAME{key:value,...}`: keys without quotes, texts between marks of their own. Made JSON when whole."""

import json
import re

from tokenworks.worker.chat.body import Body

_HEAD = re.compile(r"\s{0,32}call:\s{0,32}(?P<name>[^\s{}()<]{1,256})\s{0,32}(?=\{)")
_BEGINNING = "call:"
_KEY = re.compile(r"\s*(?P<key>[^:,{}\[\]<]+?)\s*:")
_SCALAR = re.compile(r"\s*(?P<scalar>[^,{}\[\]<]*)")
_WORDS = {"true": "true", "false": "false", "null": "null", "none": "null"}
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$")
LONGEST_HEAD = 512
DEEPEST = 64


class BareCall(Body):
    """`quote` stands before and after a text, and is never part of one."""

    def __init__(self, quote: str, markers: tuple[str, ...]) -> None:
        super().__init__(markers)
        self._quote = quote
        self._seen = 0

    def first(self) -> bool:
        head = _HEAD.match(self.text)
        if head is None:
            start = self.text.lstrip()[: len(_BEGINNING)]
            hopeless = not _BEGINNING.startswith(start) or "{" in self.text or len(self.text) > LONGEST_HEAD
            return self.give_up() if hopeless else False
        self._name = head["name"]
        self.take(head.end())
        self.step = self._arguments
        return True

    def _arguments(self) -> bool:
        if "}" not in self.text[self._seen :]:
            self._seen = len(self.text)
            return False
        self._seen = len(self.text)
        try:
            written, length = _Notation(self.text, self._quote).value(0, 0)
        except _Unfinished:
            return False
        except _Malformed:
            return self.give_up()
        self.take(length)
        self.begin(self._name)
        self.tell(written)
        self.end()
        self.step = self.after
        return True


class _Unfinished(Exception):
    """More has to come."""


class _Malformed(Exception):
    """Whatever comes, it is not this notation."""


class _Notation:
    def __init__(self, text: str, quote: str) -> None:
        self._text = text
        self._quote = quote

    def value(self, at: int, depth: int) -> tuple[str, int]:
        """(JSON, position after it)."""
        at = self._space(at)
        if depth > DEEPEST:
            raise _Malformed
        if self._text.startswith(self._quote, at):
            begin = at + len(self._quote)
            end = self._text.find(self._quote, begin)
            if end < 0:
                raise _Unfinished
            return json.dumps(self._text[begin:end], ensure_ascii=False), end + len(self._quote)
        if self._text.startswith("{", at):
            return self._items(at + 1, depth, "{", "}")
        if self._text.startswith("[", at):
            return self._items(at + 1, depth, "[", "]")
        self._maybe_quote(at)
        scalar = _SCALAR.match(self._text, at)
        if scalar is None or scalar.end() == len(self._text):
            raise _Unfinished
        if self._text[scalar.end()] == "<":
            raise _Malformed
        return _scalar(scalar["scalar"].strip()), scalar.end()

    def _items(self, at: int, depth: int, opening: str, closing: str) -> tuple[str, int]:
        items: list[str] = []
        while not self._text.startswith(closing, at := self._space(at)):
            if items:
                if not self._text.startswith(",", at):
                    raise _Malformed
                at = self._space(at + 1)
            key = ""
            if closing == "}":
                key, at = self._key(at)
            written, at = self.value(at, depth + 1)
            items.append(key + written)
        return f"{opening}{', '.join(items)}{closing}", at + 1

    def _key(self, at: int) -> tuple[str, int]:
        if self._text.startswith(self._quote, at):
            written, at = self.value(at, 0)
            if not self._text.startswith(":", self._space(at)):
                raise _Malformed
            return f"{written}: ", self._space(at) + 1
        self._maybe_quote(at)
        key = _KEY.match(self._text, at)
        if key is None:
            raise _Malformed if re.search(r"[:,{}\[\]<]", self._text[at:]) else _Unfinished
        return f"{json.dumps(key['key'].strip(chr(34)), ensure_ascii=False)}: ", key.end()

    def _maybe_quote(self, at: int) -> None:
        rest = self._text[at : at + len(self._quote)]
        if self._quote.startswith(rest):
            raise _Unfinished

    def _space(self, at: int) -> int:
        while at < len(self._text) and self._text[at].isspace():
            at += 1
        if at == len(self._text):
            raise _Unfinished
        return at


def _scalar(text: str) -> str:
    """A number or a word of JSON as it is; anything else is a text whose marks were forgotten."""
    if word := _WORDS.get(text.lower()):
        return word
    return text if _NUMBER.match(text) else json.dumps(text.strip('"'), ensure_ascii=False)
