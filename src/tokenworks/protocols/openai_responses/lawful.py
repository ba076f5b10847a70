"""The grammar in which clients can read a stream of responses. Measured: the official helper fails on a stream that
does not begin with `response.created`, on content before its item or its part, on items that change their identity or
share one, and on an item that is neither done nor in the final response.

What a host left out is put in its place, and what follows is numbered anew; what cannot be mended is a garbled stream.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tokenworks.protocols.openai_responses import types as wire
from tokenworks.protocols.validation import present

_ENCODE = msgspec.json.Encoder().encode
_OBJECT = msgspec.json.Decoder(dict[str, Any]).decode

ADDED, DONE = "response.output_item.added", "response.output_item.done"
_PART, _PART_ADDED = "response.content_part.", "response.content_part.added"
_CALL = "response.function_call_arguments."
_OF_MESSAGES = {"response.output_text.": "output_text", "response.refusal.": "refusal"}
_OF_REASONING = ("response.reasoning_text.", "response.reasoning.", "response.reasoning_summary_")
_BEGINNINGS = frozenset({"response.created", "response.queued", "response.in_progress"})
_ENDINGS = frozenset({"response.completed", "response.incomplete"})
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc"}

_MOST_MISSING = 16
"""Parts of an item that are put in their places; a host that lacks more counts otherwise."""
_IDENTITY = ("id", "call_id")

Passed = tuple[str, bytes]
"""An event's type and its data."""


@dataclass(slots=True)
class _Item:
    """As it was told: `body` of its first event, or of its last one once it is `done`."""

    body: dict[str, Any]
    parts: int = 0
    done: bool = False


@dataclass(slots=True)
class Lawful:
    """`begun` makes the response object with which a stream has to begin."""

    begun: Callable[[], dict[str, Any]]
    sequence: int = -1
    """Of the last event that was passed."""
    _has_begun: bool = False
    _items: dict[int, _Item] = field(default_factory=dict)

    def see(self, event: wire.PassingEvent, data: bytes) -> list[Passed]:
        """What to pass for an event. ValueError when there is no mending it."""
        return [self._numbered(*each, event.sequence_number, data) for each in self._passed(event, data)]

    def _numbered(self, kind: str, data: bytes, told: int, original: bytes) -> Passed:
        self.sequence += 1
        if data is original and told == self.sequence:
            return kind, data
        return kind, _ENCODE({**_OBJECT(data), "sequence_number": self.sequence})

    def _passed(self, event: wire.PassingEvent, data: bytes) -> Iterator[Passed]:
        kind = event.type
        if kind == "error":
            yield kind, data
            return
        if not self._has_begun:
            yield from self._begin(event, kind)
        if kind in _BEGINNINGS:
            yield kind, data
        elif kind in _ENDINGS:
            yield from self._end(event, data)
        elif kind == ADDED:
            yield from self._add(event, data)
        elif kind == DONE:
            yield from self._finish(event, data)
        elif kind.startswith(_CALL):
            item = self._items.get(event.output_index)
            if item is not None:  # otherwise it comes whole when it is done: nobody knows its name yet
                self._check(item, "function_call")
                yield kind, self._named(item, event, data)
        elif (holder := _holder(kind, event)) is not None:
            yield from self._content(event, data, *holder)
        else:
            yield kind, data

    def _begin(self, event: wire.PassingEvent, kind: str) -> Iterator[Passed]:
        self._has_begun = True
        response: Any = self.begun()
        if kind in _BEGINNINGS:
            response = msgspec.Raw(event.response)
            for index, body in enumerate(_OBJECT(event.response).get("output") or ()):
                self._known(index, body)
        if kind != "response.created":
            yield _event("response.created", response=response)

    def _add(self, event: wire.PassingEvent, data: bytes) -> Iterator[Passed]:
        if event.output_index in self._items or not present(event.item):
            return  # told before
        given = _OBJECT(event.item)
        known = self._known(event.output_index, given)
        yield ADDED, data if known.body == given else _ENCODE({**_OBJECT(data), "item": known.body})

    def _known(self, index: int, body: dict[str, Any]) -> _Item:
        """One more item. No two have the same identity."""
        own = dict(body)
        for name in _IDENTITY:
            if name == "id" or isinstance(body.get(name), str):
                used = [item.body.get(name) for item in self._items.values()]
                while not isinstance(own.get(name), str) or own[name] in used:
                    own[name] = f"{own.get(name) or _PREFIXES.get(body.get('type', ''), 'item')}_{index}"
        item = self._items[index] = _Item(own, len(own.get("content") or ()))
        return item

    def _finish(self, event: wire.PassingEvent, data: bytes) -> Iterator[Passed]:
        body, known = _OBJECT(event.item), self._items.get(event.output_index)
        if known is None:
            yield from self._add(event, data)
            known = self._items[event.output_index]
        mended = _as_told(body, known.body)
        known.body, known.done = mended, True
        yield DONE, data if mended == body else _ENCODE({**_OBJECT(data), "item": mended})

    def _content(self, event: wire.PassingEvent, data: bytes, kind: str, part: str) -> Iterator[Passed]:
        index = event.output_index
        item = self._items.get(index)
        if item is None:
            body: dict[str, Any] = {"id": event.item_id, "type": kind, "status": "in_progress"}
            body |= {"role": "assistant", "content": []} if kind == "message" else {"summary": []}
            item = self._known(index, body)
            yield _event(ADDED, output_index=index, item=item.body)
        self._check(item, kind)
        if kind == "message":
            if event.type == _PART_ADDED and event.content_index < item.parts:
                return  # told before
            begins = event.type == _PART_ADDED
            if event.content_index - item.parts > _MOST_MISSING:
                raise ValueError(f"part {event.content_index} of an item comes after {item.parts} others")
            for missing in range(item.parts, event.content_index + (not begins)):
                empty = {"type": part, "refusal": ""} if part == "refusal" else _NO_TEXT
                place = {"item_id": item.body["id"], "output_index": index, "content_index": missing}
                yield _event(_PART_ADDED, **place, part=empty)
            item.parts = max(item.parts, event.content_index + 1)
        yield event.type, self._named(item, event, data)

    def _named(self, item: _Item, event: wire.PassingEvent, data: bytes) -> bytes:
        if event.item_id == item.body.get("id"):
            return data
        return _ENCODE({**_OBJECT(data), "item_id": item.body.get("id")})

    def _check(self, item: _Item, kind: str) -> None:
        if item.body.get("type") != kind:
            raise ValueError(f"content of a {kind} in an item of type {item.body.get('type')!r}")

    def _end(self, event: wire.PassingEvent, data: bytes) -> Iterator[Passed]:
        response = _OBJECT(event.response)
        output: list[dict[str, Any]] = list(response.get("output") or ())
        if not output:
            output = [item.body for _, item in sorted(self._items.items()) if item.done]
        status = "completed" if event.type == "response.completed" else "incomplete"
        for index, item in sorted(self._items.items()):
            if (item.done and "call_id" not in item.body) or any(body.get("id") == item.body["id"] for body in output):
                continue
            if index < len(output) and output[index].get("type") == item.body.get("type"):
                output[index] = _as_told(output[index], item.body)
            elif not item.done:
                yield _event(DONE, output_index=index, item={**item.body, "status": status})
        if output == response.get("output"):
            yield event.type, data
        else:
            yield event.type, _ENCODE({**_OBJECT(data), "response": {**response, "output": output}})


_NO_TEXT = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


def _event(kind: str, **members: Any) -> Passed:
    return kind, _ENCODE({"type": kind, "sequence_number": 0, **members})


def _holder(kind: str, event: wire.PassingEvent) -> tuple[str, str] | None:
    """(type of the item that holds it, type of its part) of an event that tells content."""
    if kind.startswith(_PART):
        part = (event.part and event.part.type) or "output_text"
        return ("reasoning" if part == "reasoning_text" else "message"), part
    for prefix, part in _OF_MESSAGES.items():
        if kind.startswith(prefix):
            return "message", part
    return ("reasoning", "") if kind.startswith(_OF_REASONING) else None


def _as_told(body: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """An item under the identity that the caller knows."""
    if body.get("type") != told.get("type"):
        raise ValueError(f"an item became one of another type, {body.get('type')!r}")
    identity = {name: told[name] for name in _IDENTITY if name in told}
    return {name: value for name, value in body.items() if name not in _IDENTITY or name in told} | identity
