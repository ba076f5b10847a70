"""Calls that their provider signed. Gemini does, and refuses a conversation in which such a call comes back without its
signature: https://ai.google.dev/gemini-api/docs/thought-signatures.

Clients of every protocol send a call's id back as it was, and nothing that they do not know: so the signature travels
in the id, and its provider gets both back. Others get the id that there was.
"""

import base64
import binascii
from typing import Any

import msgspec

from tokenworks.protocols.openai_chat import types as wire
from tokenworks.protocols.validation import present

MARK = "__signed__"
"""Between an id and what was signed, in letters that every protocol takes in an id."""

_EXTRA = msgspec.json.Decoder(wire.ExtraContent)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MESSAGES = msgspec.json.Decoder(list[dict[str, Any]])
_ENCODE = msgspec.json.Encoder().encode


def signed_id(part: wire.ToolCallDelta) -> str | None:
    """Of a call's first part: its id, with the signature if there is one."""
    if not present(part.extra_content):
        return part.id
    try:
        google = _EXTRA.decode(part.extra_content).google
    except msgspec.MsgspecError:  # somebody else's extra
        return part.id
    if google is None or not google.thought_signature:
        return part.id
    told = base64.urlsafe_b64encode(google.thought_signature.encode()).decode().rstrip("=")
    return f"{part.id or ''}{MARK}{told}"


def unsigned_id(text: str) -> str:
    return text.partition(MARK)[0]


def restored(body: bytes, *, told: bool) -> bytes:
    """A body of chat completions whose calls have the ids that there were; `told`: and their signatures."""
    members = _MEMBERS.decode(body)
    if "messages" not in members:  # another protocol's, in whose text the mark is
        return body
    messages = _MESSAGES.decode(members["messages"])
    for message in messages:
        if isinstance(message.get("tool_call_id"), str):
            message["tool_call_id"] = unsigned_id(message["tool_call_id"])
        for call in message.get("tool_calls") or ():
            signature = _signature(call["id"])
            call["id"] = unsigned_id(call["id"])
            if told and signature is not None:
                call["extra_content"] = {"google": {"thought_signature": signature}}
    return _ENCODE({**members, "messages": messages})


def _signature(call_id: str) -> str | None:
    """None also for what nobody wrote so."""
    told = call_id.partition(MARK)[2]
    try:
        return base64.urlsafe_b64decode(told + "=" * (-len(told) % 4)).decode() or None
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
