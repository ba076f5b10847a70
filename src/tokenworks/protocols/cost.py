"""What an answer cost its caller, told in its `usage`: `cost` in USD, as others call it, and `cost_nano_usd`.

Only the object of usage is made anew; what else stands in the bytes passes as it came. What an upstream says of costs
is about ours, and is taken out.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

from tokenworks.core.money import nano_to_usd

_USAGE = re.compile(rb'"usage"\s*:\s*(?=\{)')
_COUNTS = {"prompt_tokens", "input_tokens", "output_tokens", "completion_tokens", "total_tokens"}
_OURS = ("cost", "cost_nano_usd", "cost_details", "is_byok", "estimated_cost")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SCAN = json.JSONDecoder().raw_decode
_ENCODE = msgspec.json.Encoder().encode


def in_answer(body: bytes, charge: int) -> bytes:
    """A whole answer, where it has a `usage`."""
    if b'"usage"' not in body:
        return body
    try:
        members = _MEMBERS.decode(body)
        usage = _MEMBERS.decode(members.get("usage", b"null"))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body  # it holds no object of that name, as an answer of many parts
    if _COUNTS.isdisjoint(usage):
        return body
    for name in _OURS:
        usage.pop(name, None)
    return _ENCODE({**members, "usage": {**usage, **_members(charge)}})


def in_stream(out: bytes, charge: Callable[[], int]) -> bytes:
    """A part of a stream, where it reports usage. No string can be taken for that key: its quotes would be escaped."""
    if b'"usage"' not in out:
        return out
    for found in reversed(list(_USAGE.finditer(out))):
        text = out[found.end() :].decode("utf-8", "replace")
        try:
            usage, length = _SCAN(text)
        except ValueError:
            continue
        if _COUNTS.isdisjoint(usage):
            continue
        kept: dict[str, Any] = {name: value for name, value in usage.items() if name not in _OURS}
        rest = out[found.end() + len(text[:length].encode()) :]
        return out[: found.end()] + _ENCODE({**kept, **_members(charge())}) + rest
    return out


def _members(charge: int) -> dict[str, Any]:
    return {"cost": msgspec.Raw(nano_to_usd(charge).encode()), "cost_nano_usd": charge}
