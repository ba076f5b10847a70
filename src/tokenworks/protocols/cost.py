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
_KEY = b'"usage"'
_BEGINNING = b'"message_start"'
"""The first event of a stream that tells usage twice."""
_PLAIN = re.compile(rb'"usage"\s*:\s*\{(?=\s*"(?:prompt|input|output|completion|total)_tokens"\s*:)')
_TOLD = re.compile(rb'"cost":[0-9.e+-]+,"cost_nano_usd":\d+')
_COUNTS = {"prompt_tokens", "input_tokens", "output_tokens", "completion_tokens", "total_tokens"}
_OURS = ("cost", "cost_nano_usd", "cost_details", "is_byok", "estimated_cost")
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SCAN = json.JSONDecoder().raw_decode
_ENCODE = msgspec.json.Encoder().encode


def in_answer(body: bytes, charge: int) -> bytes:
    """A whole answer, where it has a `usage`."""
    at = body.rfind(_KEY)
    if at < 0:
        return body
    if (found := _plain(body, at)) is not None and body.find(_KEY) == at:
        return _inserted(body, found, charge)
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
    at = out.rfind(_KEY)
    if at < 0 or out.rfind(_BEGINNING, 0, at) > out.rfind(b"\n\n", 0, at):  # no total yet
        return out
    if (begin := _plain(out, at)) is not None:
        return _inserted(out, begin, charge())
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


def repriced(out: bytes, charge: int) -> bytes:
    """A part of a stream that told what an answer cost, telling another cost."""
    at = out.rfind(_KEY)
    found = _TOLD.search(out, at) if at >= 0 else None
    return out if found is None else out[: found.start()] + _told(charge) + out[found.end() :]


def _told(charge: int) -> bytes:
    return b'"cost":%s,"cost_nano_usd":%d' % (nano_to_usd(charge).encode(), charge)


def _plain(text: bytes, at: int) -> int | None:
    """Where the members of the usage at `at` begin, if they say nothing of costs: then two more in front are enough."""
    found = _PLAIN.match(text, at)
    if found is None or text.find(b"cost", at) >= 0 or text.find(b"is_byok", at) >= 0:
        return None
    return found.end()


def _inserted(text: bytes, begin: int, charge: int) -> bytes:
    return text[:begin] + _told(charge) + b"," + text[begin:]


def _members(charge: int) -> dict[str, Any]:
    return {"cost": msgspec.Raw(nano_to_usd(charge).encode()), "cost_nano_usd": charge}
