"""Calls written with tags: `<function=NAME>{...}</function>`, or each argument in a tag of its own."""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from tokenworks.worker.chat.body import Body, Part
from tokenworks.worker.chat.json_calls import JSONCalls
from tokenworks.worker.chat.scanner import Value

FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"

_NAME_ENDS = re.compile(r"[>\n<]")

Schemas = Mapping[str, Mapping[str, Any]]
"""The JSON schema of each function's arguments, by its name."""


class TaggedCall(Body):
    """One call, from the function's name on."""

    def __init__(self, schemas: Schemas, markers: tuple[str, ...] = (), taken: str = "") -> None:
        super().__init__(markers, taken)
        self._schemas = schemas
        self._properties: Mapping[str, Any] = {}
        self._separator = "{"

    def first(self) -> bool:
        end = _NAME_ENDS.search(self.text)
        if end is None:
            return False
        if end[0] != ">":
            return self.give_up()
        name = self.take(end.end())[:-1].strip().strip('"')
        self._properties = self._schemas.get(name, {}).get("properties") or {}
        self.begin(name)
        self.step = self._inside
        return True

    def _inside(self) -> bool:
        if not self.skip_space():
            return False
        if self.text[0] == "{" and self._separator == "{":
            self._scan = Value()
            self.step = self._object
        elif self.text.startswith(PARAMETER):
            if ">" not in self.text or PARAMETER_END not in self.text:
                return False
            self._parameter()
        elif self.text.startswith(FUNCTION_END):
            self.take(len(FUNCTION_END))
            return self._call_ended()
        elif any(marker.startswith(self.text) for marker in (PARAMETER, FUNCTION_END)):
            return False
        else:
            return self._call_ended()
        return True

    def _object(self) -> bool:
        if not self.text:
            return False
        length = self._scan.feed(self.text)
        self.tell(self.take(len(self.text) if length is None else length))
        if length is None:
            return False
        self._separator = ""
        self.step = self._inside
        return True

    def _parameter(self) -> None:
        key, _, rest = self.text[len(PARAMETER) :].partition(">")
        value, _, self.text = rest.partition(PARAMETER_END)
        name = key.strip().strip('"')
        written = _written(value.removeprefix("\n").removesuffix("\n"), self._properties.get(name))
        self.tell(f"{self._separator}{json.dumps(name, ensure_ascii=False)}: {written}")
        self._separator = ", "

    def _call_ended(self) -> bool:
        if self._separator == ", ":
            self.tell("}")
        self.end()
        self.step = self.after
        return True


def _written(text: str, schema: Any) -> str:
    """A value as JSON: text is quoted unless the schema says that it is something else, or nothing at all."""
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if kind == "string" or (isinstance(kind, list) and "string" in kind and text != "null"):
        return json.dumps(text, ensure_ascii=False)
    try:
        msgspec.json.decode(text.strip())
    except msgspec.DecodeError:
        # Python's words for them are common where values stand bare.
        return {"True": "true", "False": "false", "None": "null"}.get(text.strip()) or json.dumps(
            text, ensure_ascii=False
        )
    return text.strip()


class MarkedCalls(Body):
    """After `<tool_call>`: JSON, or a call with tags."""

    def __init__(self, schemas: Schemas, marker: str) -> None:
        super().__init__((marker,))
        self._schemas = schemas
        self._inner: Body | None = None

    def first(self) -> bool:
        inside = self.text.lstrip()
        if self._inner is None and FUNCTION.startswith(inside) and inside != FUNCTION:
            return False
        if self._inner is None and inside.startswith(FUNCTION):
            before = len(self.text) - len(inside) + len(FUNCTION)
            self._inner = TaggedCall(self._schemas, self.markers, self.text[:before])
            self.text = self.text[before:]
        elif self._inner is None:
            self._inner = JSONCalls(self.markers)
        self._parts += self._inner.feed(self.text)
        self.done = self._inner.done
        self.text = self._inner.text if self.done else ""
        return False

    def close(self) -> list[Part]:
        if self._inner is None or self.done:
            return super().close()
        self.done = True
        return self._inner.close()
