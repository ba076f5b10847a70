"""The output of one response while it grows: items, and the stream events that tell of them.

Text and reasoning follow one another; an item of either is closed when something else begins. Function calls may
grow side by side, so all of them stay open until the end.
"""

from collections.abc import Callable
from typing import Any

from tokenworks.core.events import (
    Event,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)
from tokenworks.protocols.openai_chat.responses import encode_logprobs
from tokenworks.protocols.openai_responses.items import SIGNATURE
from tokenworks.protocols.openai_responses.told import ToldItem

Emit = Callable[[str, dict[str, Any]], None]

_PARTS = {
    "output_text": ("content", "content_index", "response.content_part", "response.output_text", "text"),
    "refusal": ("content", "content_index", "response.content_part", "response.refusal", "refusal"),
    "reasoning_text": ("content", "content_index", "response.content_part", "response.reasoning_text", "text"),
    "summary_text": (
        "summary",
        "summary_index",
        "response.reasoning_summary_part",
        "response.reasoning_summary_text",
        "text",
    ),
}
"""Kind of part: the item's list that holds it, the name of its place there, its events, the member with its text."""


class Output:
    """`emit` gets each event's type and members. `suffix` makes the ids of items."""

    def __init__(self, suffix: str, emit: Emit) -> None:
        self._suffix = suffix
        self._emit = emit
        self._items: list[_Parts | _Call] = []
        self._open: _Parts | None = None
        self._calls: dict[int, _Call] = {}
        self._latest: _Parts | _Call | None = None

    def go_on(self, told: list[ToldItem]) -> None:
        """With what the caller was told by another."""
        for index, item in enumerate(told):
            called = item.body.get("type") == "function_call"
            again = _Call.again(index, item, self._emit) if called else _Parts.again(index, item, self._emit)
            self._items.append(again)
            if isinstance(again, _Call):
                self._calls[len(self._calls)] = again
            if not item.closed:
                self._latest = again
                self._open = again if isinstance(again, _Parts) else self._open

    def add(self, event: Event) -> None:
        """There is one choice in this protocol: deltas of another are not part of the answer."""
        match event:
            case TextDelta(index=0) if event.text or event.logprobs:
                kind = "refusal" if isinstance(event, RefusalDelta) else "output_text"
                self._item("message").write(kind, event.text, event.logprobs)
            case ReasoningDelta(index=0) if event.text or event.signature or event.encrypted:
                self._reason(event)
            case ToolCallDelta(index=0):
                self._call(event)

    def finish(self, *, complete: bool = True) -> None:
        """Close what is open. In an incomplete answer the item that was being written is incomplete too."""
        for item in self._items:
            if not item.closed:
                item.close("completed" if complete or item is not self._latest else "incomplete")

    def snapshot(self, open_status: str = "in_progress") -> list[dict[str, Any]]:
        return [item.body if item.closed else item.draft(open_status) for item in self._items]

    def _item(self, kind: str) -> "_Parts":
        if self._open is None or self._open.body["type"] != kind:
            self._close_open()
            self._open = _Parts(len(self._items), self._suffix, kind, self._emit)
            self._items.append(self._open)
        self._latest = self._open
        return self._open

    def _close_open(self) -> None:
        if self._open is not None:
            self._open.close("completed")
            self._open = None

    def _reason(self, event: ReasoningDelta) -> None:
        kind = "summary_text" if isinstance(event, SummaryDelta) else "reasoning_text"
        if event.text and self._open is not None and self._open.holds_finished(kind):
            self._close_open()
        item = self._item("reasoning")
        if event.text:
            item.write(kind, event.text)
        if event.encrypted or event.signature:
            item.body["encrypted_content"] = event.encrypted or f"{SIGNATURE}{event.signature}"
            self._close_open()

    def _call(self, event: ToolCallDelta) -> None:
        self._close_open()
        call = self._calls.get(event.call)
        if call is None:
            call = self._calls[event.call] = _Call(len(self._items), self._suffix, event, self._emit)
            self._items.append(call)
        if event.arguments:
            call.write(event.arguments)
        self._latest = call


class _Parts:
    """A message or a reasoning item."""

    def __init__(self, index: int, suffix: str, kind: str, emit: Emit) -> None:
        prefix = "msg" if kind == "message" else "rs"
        self.body: dict[str, Any] = {"id": f"{prefix}_{suffix}_{index}", "type": kind, "status": "in_progress"}
        self.body |= {"role": "assistant", "content": []} if kind == "message" else {"summary": []}
        self.closed = False
        self._index = index
        self._emit = emit
        self._kind = ""
        self._place: dict[str, Any] = {}
        self._text: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        emit("response.output_item.added", {"output_index": index, "item": self.draft("in_progress")})

    @classmethod
    def again(cls, index: int, told: ToldItem, emit: Emit) -> "_Parts":
        """Also one of another kind that is closed."""
        parts = cls(index, "", "message", nothing)
        parts.body, parts.closed, parts._emit = told.body, told.closed, emit
        parts._kind, parts._text, parts._logprobs = told.part, told.text, told.logprobs
        if told.part:
            place = {"item_id": told.body["id"], "output_index": index}
            parts._place = place | {_PARTS[told.part][1]: told.number}
        return parts

    def write(self, kind: str, text: str, logprobs: list[TokenLogprob] | None = None) -> None:
        if kind != self._kind:
            self._end_part()
            self._begin_part(kind)
        self._text.append(text)
        delta = {**self._place, "delta": text}
        if kind == "output_text":
            delta["logprobs"] = _logprobs(logprobs) if logprobs else []
            self._logprobs += delta["logprobs"]
        self._emit(_PARTS[kind][3] + ".delta", delta)

    def holds_finished(self, kind: str) -> bool:
        return kind != self._kind and bool(self.body.get(_PARTS[kind][0]))

    def close(self, status: str) -> None:
        self._end_part()
        self.body["status"] = status
        self.closed = True
        self._emit("response.output_item.done", {"output_index": self._index, "item": self.body})

    def draft(self, status: str) -> dict[str, Any]:
        """The item as it would be if it ended now."""
        draft = {**self.body, "status": status}
        if self._kind:
            holder = _PARTS[self._kind][0]
            draft[holder] = [*draft.get(holder, ()), self._part()]
        return draft

    def _begin_part(self, kind: str) -> None:
        holder, place, events, _, _ = _PARTS[kind]
        self._kind, self._text, self._logprobs = kind, [], []
        number = len(self.body.setdefault(holder, []))
        self._place = {"item_id": self.body["id"], "output_index": self._index, place: number}
        self._emit(events + ".added", {**self._place, "part": self._part()})

    def _end_part(self) -> None:
        if not self._kind:
            return
        holder, _, events, prefix, member = _PARTS[self._kind]
        part = self._part()
        done = {**self._place, member: part[member]}
        if self._kind == "output_text":
            done["logprobs"] = self._logprobs
        self._emit(prefix + ".done", done)
        self._emit(events + ".done", {**self._place, "part": part})
        self.body[holder].append(part)
        self._kind = ""

    def _part(self) -> dict[str, Any]:
        part: dict[str, Any] = {"type": self._kind, _PARTS[self._kind][4]: "".join(self._text)}
        if self._kind == "output_text":
            part |= {"annotations": [], "logprobs": self._logprobs}
        return part


class _Call:
    def __init__(self, index: int, suffix: str, event: ToolCallDelta, emit: Emit) -> None:
        self.body: dict[str, Any] = {
            "id": f"fc_{suffix}_{index}",
            "type": "function_call",
            "status": "in_progress",
            "call_id": event.id or f"call_{suffix}_{index}",
            "name": event.name or "",
            "arguments": "",
        }
        self.closed = False
        self._place = {"item_id": self.body["id"], "output_index": index}
        self._index = index
        self._emit = emit
        self._arguments: list[str] = []
        emit("response.output_item.added", {"output_index": index, "item": self.draft("in_progress")})

    @classmethod
    def again(cls, index: int, told: ToldItem, emit: Emit) -> "_Call":
        call = cls(index, "", ToolCallDelta(0, ""), nothing)
        call.body, call.closed, call._emit, call._arguments = told.body, told.closed, emit, told.text
        call._place = {"item_id": told.body["id"], "output_index": index}
        return call

    def write(self, arguments: str) -> None:
        self._arguments.append(arguments)
        self._emit("response.function_call_arguments.delta", {**self._place, "delta": arguments})

    def close(self, status: str) -> None:
        self.body = self.draft(status)
        self.closed = True
        named = {"name": self.body["name"], "arguments": self.body["arguments"]}
        self._emit("response.function_call_arguments.done", {**self._place, **named})
        self._emit("response.output_item.done", {"output_index": self._index, "item": self.body})

    def draft(self, status: str) -> dict[str, Any]:
        return {**self.body, "status": status, "arguments": "".join(self._arguments)}


def nothing(kind: str, members: dict[str, Any]) -> None:
    """The caller knows it."""


def _logprobs(given: list[TokenLogprob]) -> list[dict[str, Any]]:
    """This protocol's schema wants `bytes` always."""
    encoded: list[dict[str, Any]] = (encode_logprobs(given) or {})["content"]
    for token in encoded:
        for entry in (token, *token["top_logprobs"]):
            if entry["bytes"] is None:
                entry["bytes"] = list(entry["token"].encode())
    return encoded
