"""What makes two requests the same: everything that may change the answer, and whose they are."""

import hashlib
import hmac
from typing import Any

import msgspec

from tokenworks.core.caller import Caller
from tokenworks.core.request import Request
from tokenworks.protocols.base import Codec, OwnHeaders, ReadsHeaders, Repeatable

NO_MATTER = ("model", "user", "metadata", "safety_identifier", "prompt_cache_key")
"""Members of a body that change no answer. The model counts by its public name, suffixes and pins as preferences."""

_DECODE = msgspec.json.Decoder(dict[str, object]).decode
_ENCODE = msgspec.json.Encoder(order="sorted").encode


def key(secret: bytes, codec: Codec, request: Request, caller: Caller, *, strict: bool) -> str | None:
    """None for what cannot be answered twice. Whole answers and streams are never taken for each other.

    `secret`, shared by all gateways: whoever reads the store cannot tell what was asked by trying.
    """
    parts = _parts(codec, request, caller, strict=strict)
    return None if parts is None else _digest(secret, parts)


def prefix(secret: bytes, codec: Codec, request: Request, caller: Caller, *, strict: bool, embedder: str) -> str | None:
    """The key of all requests that differ in nothing but the text of their last message, as `embedder` tells it. None
    where that is not the last of the body's `messages`."""
    parts = _parts(codec, request, caller, strict=strict)
    messages = parts[-1].get("messages") if parts is not None else None
    if parts is None or not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        return None
    parts[-1]["messages"] = [*messages[:-1], {**messages[-1], "content": None}]
    return _digest(secret, (embedder, parts))


def _parts(codec: Codec, request: Request, caller: Caller, *, strict: bool) -> tuple[Any, ...] | None:
    if not (isinstance(codec, Repeatable) and codec.repeatable) or isinstance(codec, OwnHeaders) or request.timed:
        return None
    try:
        body = _DECODE(request.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    for name in NO_MATTER:
        body.pop(name, None)
    return (
        caller.project_id,
        None if caller.regions is None else sorted(caller.regions),
        codec.name,
        request.model,
        codec.upstream_headers(request) if isinstance(codec, ReadsHeaders) else {},
        repr(request.routing),
        request.batch,
        strict,
        request.stream,
        request.guarded,
        body,
    )


def _digest(secret: bytes, parts: tuple[Any, ...]) -> str:
    return hmac.new(secret, _ENCODE(parts), hashlib.sha256).hexdigest()
