"""What a caller was told by a stream that was passed through, so that a writer can go on with it: the same items under
the same ids, the same places, the next number."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from tokenworks.protocols.chunks import payload
from tokenworks.protocols.openai_responses import types as wire
from tokenworks.protocols.sse import Splitter

_EVENT = msgspec.json.Decoder(wire.ToldEvent)

_DELTAS = {
    "response.output_text.delta": "output_text",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning_text",
    "response.reasoning.delta": "reasoning_text",
    "response.reasoning_summary_text.delta": "summary_text",
}
_PARTS_BEGUN = frozenset({"response.content_part.added", "response.reasoning_summary_part.added"})
_PARTS_DONE = frozenset({"response.content_part.done", "response.reasoning_summary_part.done"})
_WRITABLE = frozenset({"message", "reasoning", "function_call"})
"""Kinds of items that a writer can go on with; others can only stay as they are, once they are done."""


@dataclass(slots=True)
class ToldItem:
    """`body` as of its last event. `part`, "" for none, is the kind of the one that is being written, at `number`."""

    body: dict[str, Any]
    closed: bool = False
    part: str = ""
    number: int = 0
    text: list[str] = field(default_factory=list)
    """Of that part, or a call's arguments."""
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def holder(self) -> str:
        """The list that holds the parts."""
        return "summary" if self.part == "summary_text" else "content"


@dataclass(slots=True)
class Told:
    """`response` as it was told at the beginning; `sequence` of the last event."""

    response: dict[str, Any] = field(default_factory=dict)
    items: list[ToldItem] = field(default_factory=list)
    sequence: int = 0


def read(raw: bytes) -> Told | None:
    """None when nobody could go on with it."""
    told = Told()
    try:
        for block in Splitter().feed(raw):
            if (data := payload(block)) is not None:
                _take(told, _EVENT.decode(data))
    except (msgspec.MsgspecError, ValueError, IndexError, KeyError):
        return None
    if not told.response or not all(map(_is_named, told.items)):
        return None
    growing = [item.body.get("type") for item in told.items if not item.closed]
    if not _WRITABLE.issuperset(growing) or len(growing) - growing.count("function_call") > 1:
        return None
    return told


def _is_named(item: ToldItem) -> bool:
    names = ("id", "call_id", "name") if item.body.get("type") == "function_call" else ("id",)
    return all(isinstance(item.body.get(name), str) for name in names)


def _take(told: Told, event: wire.ToldEvent) -> None:
    told.sequence = event.sequence_number
    if event.response is not None:
        told.response = event.response
    elif event.type == "response.output_item.added" and event.item is not None:
        if event.output_index != len(told.items):
            raise ValueError("items out of their order")
        told.items.append(ToldItem(event.item))
    elif event.type == "response.output_item.done" and event.item is not None:
        told.items[event.output_index] = ToldItem(event.item, closed=True)
    elif event.type == "response.function_call_arguments.delta":
        told.items[event.output_index].text.append(_text(event))
    elif event.type in _PARTS_BEGUN and event.part is not None:
        _begin(told.items[event.output_index], event, event.part["type"])
    elif event.type in _PARTS_DONE and event.part is not None:
        item = told.items[event.output_index]
        _parts(item).append(event.part)
        item.part = ""
    elif (kind := _DELTAS.get(event.type)) is not None:
        item = told.items[event.output_index]
        if not item.part:
            _begin(item, event, kind)
        item.text.append(_text(event))
        item.logprobs += event.logprobs or ()


def _begin(item: ToldItem, event: wire.ToldEvent, kind: str) -> None:
    if kind not in _DELTAS.values():
        raise ValueError("a part that nobody could go on with")
    item.part, item.text, item.logprobs = kind, [], []
    item.number = event.summary_index if kind == "summary_text" else event.content_index
    _parts(item)


def _parts(item: ToldItem) -> list[Any]:
    """Those that are done; some hosts say nothing of them while there are none."""
    found = item.body[item.holder] = item.body.get(item.holder) or []
    if not isinstance(found, list):
        raise ValueError("parts that are no list")
    return found


def _text(event: wire.ToldEvent) -> str:
    if not isinstance(event.delta, str):
        raise ValueError("a delta without its text")
    return event.delta
