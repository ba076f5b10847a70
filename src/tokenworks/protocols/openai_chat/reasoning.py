"""Reasoning with its proof, as `reasoning_details` tell it. Chat completions have no member of their own for what a
provider signs or encrypts and wants back; this is OpenRouter's, which clients know to send back:
https://openrouter.ai/docs/use-cases/reasoning-tokens#preserving-reasoning-blocks
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from tokenworks.core.events import Event, ReasoningDelta
from tokenworks.core.messages import Message, Role, Thinking
from tokenworks.protocols.openai_chat import types as wire
from tokenworks.protocols.proofs import REDACTED
from tokenworks.protocols.validation import decode, present

NAME = "reasoning_details"

_DETAILS = msgspec.json.Decoder(list[wire.ReasoningDetail])
_OBJECTS = msgspec.json.Decoder(list[dict[str, Any]])
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode


def read_details(raw: msgspec.Raw) -> list[wire.ReasoningDetail]:
    """Of an answer; none when somebody means something else by the name."""
    if not present(raw):
        return []
    try:
        return _DETAILS.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []


class Thoughts:
    """What was told of the reasoning of each choice since its last proof: some tell it again beside the proof."""

    def __init__(self) -> None:
        self._told: dict[int, list[str]] = {}

    def of(self, text: str, raw: msgspec.Raw, index: int) -> list[Event]:
        """Of one message, or a part of it, that tells its reasoning as `text`, too."""
        events = self._events(text, read_details(raw), index)
        told = self._told.setdefault(index, [])
        for event in events:
            told.append(event.text)
            if event.signature or event.encrypted:
                told.clear()
        return [*events]

    def _events(self, text: str, details: Sequence[wire.ReasoningDetail], index: int) -> list[ReasoningDelta]:
        before = "".join(self._told.get(index, ())) if any(map(_is_proven, details)) else ""
        events: list[ReasoningDelta] = []
        for detail in details:
            shown = detail.text or detail.summary or ""
            if shown and shown == before:
                shown, before = "", ""
            if shown or _is_proven(detail):
                events.append(ReasoningDelta(shown, index, detail.signature or None, detail.data or None))
        if text and not any(event.text for event in events):
            events.insert(0, ReasoningDelta(text, index))
        return events


def _is_proven(detail: wire.ReasoningDetail) -> bool:
    return bool(detail.signature or detail.data)


class Details:
    """Of one choice: its reasoning is told as text while it comes, and once more with its proof."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._told = 0

    def of(self, event: ReasoningDelta) -> list[dict[str, Any]]:
        """What this part adds. Clients put pieces of the same `index` together, so each entry has its own."""
        self._text.append(event.text)
        if not (event.signature or event.encrypted):
            return []
        text = "".join(self._text)
        self._text.clear()
        entries: list[dict[str, Any]] = []
        if event.signature:
            entries.append({"type": "reasoning.text", "text": text, "signature": event.signature})
        elif text:
            entries.append({"type": "reasoning.summary", "summary": text})
        if event.encrypted:
            entries.append({"type": "reasoning.encrypted", "data": event.encrypted})
        self._told += len(entries)
        return [{**entry, "index": self._told - len(entries) + at} for at, entry in enumerate(entries)]


def read_thoughts(raw: msgspec.Raw, where: str) -> list[Thinking]:
    """What a caller sends back of earlier reasoning; none when nothing of it is proven. InvalidRequest."""
    details = decode(_DETAILS, raw, f"{where}.{NAME}") if present(raw) else []
    if not any(map(_is_proven, details)):
        return []
    thoughts: list[Thinking] = []
    for detail in details:
        last = thoughts[-1] if thoughts else None
        if detail.data and last is not None and last.summary and last.encrypted is None:
            last.encrypted = detail.data
        elif detail.data:
            thoughts.append(Thinking(encrypted=detail.data))
        elif detail.summary:
            thoughts.append(Thinking(detail.summary, summary=[detail.summary]))
        elif detail.text or detail.signature:
            thoughts.append(Thinking(detail.text or "", signature=detail.signature or None))
    return thoughts


def with_details(body: bytes, messages: Sequence[Message]) -> bytes:
    """A body of chat completions that was made of `messages`, with the proofs that have no other place in it."""
    members = _MEMBERS.decode(body)
    wired = _OBJECTS.decode(members["messages"])
    said = [message for message in wired if message["role"] == "assistant"]
    turns = [message for message in messages if message.role is Role.ASSISTANT]
    if len(turns) != len(said):  # results of tools in an assistant's message have one of their own
        return body
    for message, turn in zip(said, turns, strict=True):
        thoughts = [part for part in turn.parts if isinstance(part, Thinking)]
        if any(thought.signature or thought.encrypted for thought in thoughts):
            told, details = Details(), list[dict[str, Any]]()
            for thought in thoughts:
                proof = None if thought.encrypted is None else thought.encrypted.removeprefix(REDACTED)
                details += told.of(ReasoningDelta(thought.text, 0, thought.signature, proof))
            message[NAME] = details
    return _ENCODE({**members, "messages": wired})
