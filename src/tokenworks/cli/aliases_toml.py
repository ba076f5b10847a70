"""A virtual model's definition as the table of a configuration file, both ways."""

import json
import re
from collections.abc import Iterator
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def text_of(name: str, definition: dict[str, Any]) -> str:
    return "\n".join(_lines(f"aliases.{_key(name)}", definition))


def table_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The definition alone, or in its place in a configuration file."""
    tables = document.get("aliases")
    if isinstance(tables, dict) and isinstance(tables.get(name), dict):
        return dict(tables[name])
    return document


def _lines(path: str, definition: dict[str, Any]) -> Iterator[str]:
    yield f"[{path}]"
    for key, value in definition.items():
        if key != "rules":
            yield f"{key} = {_value(value)}"
    for rule in definition.get("rules", ()):
        yield f"\n[[{path}.rules]]"
        for key, value in rule.items():
            yield f"{key} = {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, str) else str(value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _text(text: str) -> str:
    """JSON's escapes are TOML's, but for DEL, which TOML wants escaped, too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
