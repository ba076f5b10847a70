"""The shape in which every client can read a chunk. Measured: the official helpers fail on, or mix up, chunks without
a list of choices, choices without a number or a delta, and calls that are not counted from 0.

Hosts leave such things out; what is passed on has them.
"""

from typing import Any

import msgspec

from tokenworks.protocols.openai_chat import types as wire
from tokenworks.protocols.openai_chat.calls import Numbers
from tokenworks.protocols.openai_chat.reasoning import NAME as DETAILS
from tokenworks.protocols.openai_chat.reasoning import read_details
from tokenworks.protocols.validation import present

OBJECT = "chat.completion.chunk"

_DECODE = msgspec.json.Decoder(dict[str, Any]).decode
_ENCODE = msgspec.json.Encoder().encode


class Shape:
    """Of one stream. Fed with every chunk."""

    def __init__(self) -> None:
        self._numbers = Numbers()
        self._kinds: dict[int, list[str]] = {}
        """Of reasoning, by choice."""
        self._choices: set[int] = set()
        """Those that have begun."""
        self._head: dict[str, Any] = {"id": "", "object": OBJECT, "created": 0, "model": ""}
        self._headed = False

    def of(self, data: bytes, chunk: wire.Answer) -> bytes:
        """The same bytes wherever they can be."""
        choices = chunk.choices
        if not self._headed and chunk.id and chunk.model is not None and chunk.created is not None:
            self._headed = True
            self._head |= {"id": chunk.id, "created": chunk.created, "model": chunk.model}
        fits = (
            choices is not None
            and chunk.object == OBJECT
            and chunk.id is not None
            and chunk.model is not None
            and chunk.created is not None
        )
        missing: list[int] = []
        parts: list[list[tuple[int, bool]]] = []
        for position, choice in enumerate(choices or ()):
            index = position if choice.index is None else choice.index
            if index not in self._choices:
                missing += [lower for lower in range(index) if lower not in self._choices]
                self._choices.update(range(index + 1))
            fits = fits and choice.index is not None and choice.delta is not None
            delta = choice.delta or choice.message
            if delta is not None and present(delta.reasoning_details):
                fits = fits and all(detail.index is not None for detail in read_details(delta.reasoning_details))
            if delta is not None and delta.tool_calls:
                numbers = [self._numbers.of(index, part) for part in delta.tool_calls]
                fits = fits and all(map(_is_plain, delta.tool_calls, numbers))
                parts.append(numbers)
            else:
                parts.append([])
        if fits and not missing:
            return data
        return self._written(_DECODE(data), missing, parts)

    def _written(self, chunk: dict[str, Any], missing: list[int], parts: list[list[tuple[int, bool]]]) -> bytes:
        for name, value in self._head.items():
            if name == "object" or chunk.get(name) is None:
                chunk[name] = value
        chunk["choices"] = chunk.get("choices") or []
        for position, (choice, numbers) in enumerate(zip(chunk["choices"], parts, strict=True)):
            if choice.get("index") is None:
                choice["index"] = position
            if choice.get("delta") is None:
                choice["delta"] = choice.pop("message", None) or {}
            self._count_details(choice["index"], choice["delta"].get(DETAILS))
            for part, (number, begins) in zip(choice["delta"].get("tool_calls") or (), numbers, strict=True):
                _count(part, number, begins=begins)
        empty = {"delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        before = [{"index": index, **empty} for index in missing]
        chunk["choices"] = [*before, *chunk["choices"]]
        return _ENCODE(chunk)

    def _count_details(self, index: int, details: Any) -> None:
        """Pieces of one kind go together."""
        for detail in details if isinstance(details, list) else ():
            if isinstance(detail, dict) and detail.get("index") is None:
                kinds = self._kinds.setdefault(index, [])
                kind = str(detail.get("type"))
                if kind not in kinds:
                    kinds.append(kind)
                detail["index"] = kinds.index(kind)


def _is_plain(part: wire.ToolCallDelta, counted: tuple[int, bool]) -> bool:
    number, begins = counted
    return part.index == number and part.function is not None and (begins or not (part.id or part.function.name))


def _count(part: dict[str, Any], number: int, *, begins: bool) -> None:
    """Clients add texts up, also those of ids and of names."""
    part["index"] = number
    function = part["function"] = part.get("function") or {}
    if not begins:
        part.pop("id", None)
        function.pop("name", None)
    if function.get("arguments") is None:
        function["arguments"] = ""
