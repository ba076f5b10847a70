"""The grammar in which clients can read a stream of Messages. Measured: the official helper fails on a stream without
its beginning, on deltas before their block, on blocks that are not counted from 0, and on members that it goes on with
and that are not there.

What a host left out is put in its place; what cannot be mended is a garbled stream.
"""

from typing import Any

import msgspec

from tokenworks.protocols.anthropic_messages import types as wire

_ENCODE = msgspec.json.Encoder().encode
_OBJECT = msgspec.json.Decoder(dict[str, Any]).decode

_BLOCKS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking"}
"""Kinds of blocks, by the deltas that only they have. What a call is called no delta tells."""
_EMPTY: dict[str, dict[str, Any]] = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}
_IN_BLOCKS = frozenset({"content_block_start", "content_block_delta", "content_block_stop"})
_AT_ITS_END = frozenset({"message_delta", "message_stop"})

Passed = tuple[str, bytes]
"""An event's type and its data."""


class Lawful:
    """`message` is what a stream begins with whose host does not say it."""

    def __init__(self, message: dict[str, Any]) -> None:
        self._message = message
        self._has_begun = False
        self._blocks = 0

    def see(self, event: wire.PassingEvent, data: bytes) -> list[Passed]:
        """What to pass for an event. ValueError when there is no mending it."""
        kind = event.type
        if kind == "content_block_delta" and event.index < self._blocks:
            return [(kind, data)]
        if kind == "message_start":
            self._has_begun = True
            return [(kind, _with(data, "message", self._message))]
        if kind not in _IN_BLOCKS and kind not in _AT_ITS_END:
            return [(kind, data)]
        head = [] if self._has_begun else [self._begin()]
        if kind in _AT_ITS_END:
            return [*head, (kind, _ended(data) if kind == "message_delta" else data)]
        if event.index > self._blocks:
            raise ValueError(f"block {event.index} comes after {self._blocks} others")
        return [*head, *self._in_block(kind, event, data)]

    def _in_block(self, kind: str, event: wire.PassingEvent, data: bytes) -> list[Passed]:
        is_new = event.index == self._blocks
        if kind == "content_block_stop":
            return [] if is_new else [(kind, data)]
        if kind == "content_block_start":
            self._blocks += is_new
            return [(kind, _opened(data))] if is_new else []
        block = _BLOCKS.get(event.delta.type) if event.delta is not None else None
        if block is None:
            raise ValueError(f"a delta of block {event.index} before its beginning")
        self._blocks += 1
        empty = {"type": block, **_EMPTY[block]}
        return [_event("content_block_start", index=event.index, content_block=empty), (kind, data)]

    def _begin(self) -> Passed:
        self._has_begun = True
        return _event("message_start", message=self._message)


def _event(kind: str, **members: Any) -> Passed:
    return kind, _ENCODE({"type": kind, **members})


def _opened(data: bytes) -> bytes:
    block = _OBJECT(data).get("content_block") or {}
    return _with(data, "content_block", _EMPTY.get(block.get("type", ""), {}))


def _ended(data: bytes) -> bytes:
    event = _OBJECT(data)
    if event.get("delta") is not None and event.get("usage") is not None:
        return data
    return _ENCODE({**event, "delta": event.get("delta") or {}, "usage": event.get("usage") or {"output_tokens": 0}})


def _with(data: bytes, member: str, needed: dict[str, Any]) -> bytes:
    """The same bytes, unless the member lacks something of what it needs."""
    event = _OBJECT(data)
    given = event.get(member) or {}
    missing = {name: value for name, value in needed.items() if given.get(name) is None and value is not None}
    return _ENCODE({**event, member: {**given, **missing}}) if missing else data
