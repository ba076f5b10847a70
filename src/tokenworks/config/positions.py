"""Lines of keys in a TOML text. tomllib tells none, and the parsers that do are not among our dependencies.

Expects text that tomllib has accepted, so this scanner only has to find its way, not to judge.
"""

import re
import tomllib
from collections import Counter

Path = tuple[str | int, ...]

SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
BARE = re.compile(r"[A-Za-z0-9_-]+")
# Multi-line strings first: their delimiter begins like the others'. Up to two quotes may precede the closing three.
STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'",
    re.DOTALL,
)
SCALAR = re.compile(r"[^,\]}\n#]*")


def key_lines(text: str) -> dict[Path, int]:
    """Path of every table, key and array element -> the line (from 1) on which it is first named."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[Path, int] = {(): 1}
        self._arrays: Counter[Path] = Counter()

    def scan(self) -> dict[Path, int]:
        table: Path = ()
        self._space()
        begun = -1
        while begun < self._at < len(self._text):
            begun = self._at
            if self._take("[["):
                table = self._header("]]")
                index = self._arrays[table]
                self._arrays[table] += 1
                table = (*table, index)
                self._note(table)
            elif self._take("["):
                table = self._header("]")
            else:
                self._pair(table)
            self._space()
        return self._lines

    def _header(self, close: str) -> Path:
        """`[a.b.c]`: an array of tables on the way stands for its last element."""
        path: Path = ()
        for key in self._keys():
            if self._arrays[path]:
                path = (*path, self._arrays[path] - 1)
            path = (*path, key)
            self._note(path)
        if close == "]" and self._arrays[path]:
            path = (*path, self._arrays[path] - 1)
        self._take(close)
        return path

    def _pair(self, table: Path) -> None:
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path)
        self._take("=")
        self._space()
        self._value(path)

    def _keys(self) -> list[str]:
        keys = []
        while True:
            self._space()
            if bare := BARE.match(self._text, self._at):
                self._at = bare.end()
                keys.append(bare[0])
            elif quoted := STRING.match(self._text, self._at):
                self._at = quoted.end()
                keys.append(tomllib.loads(f"key = {quoted[0]}")["key"])
            self._space()
            if not self._take("."):
                return keys

    def _value(self, path: Path) -> None:
        self._note(path)
        if self._take("{"):
            self._items(path, "}")
        elif self._take("["):
            self._items(path, "]")
        elif string := STRING.match(self._text, self._at):
            self._at = string.end()
        elif scalar := SCALAR.match(self._text, self._at):
            self._at = scalar.end()

    def _items(self, path: Path, close: str) -> None:
        index, begun = 0, -1
        while begun < self._at < len(self._text):
            begun = self._at
            self._space()
            if self._take(close):
                return
            if close == "}":
                self._pair(path)
            else:
                self._value((*path, index))
            index += 1
            self._space()
            self._take(",")

    def _note(self, path: Path) -> None:
        if path not in self._lines:
            self._lines[path] = self._text.count("\n", 0, self._at) + 1

    def _space(self) -> None:
        match = SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _take(self, token: str) -> bool:
        if self._text.startswith(token, self._at):
            self._at += len(token)
            return True
        return False
