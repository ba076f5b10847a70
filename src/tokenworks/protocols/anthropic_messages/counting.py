"""`POST /v1/messages/count_tokens`: how many tokens a request's prompt has, without asking for an answer."""

import msgspec

from tokenworks.core.request import Request
from tokenworks.protocols.anthropic_messages.blocks import NAME
from tokenworks.protocols.anthropic_messages.requests import decode_countable, encode_request, rewrite_request
from tokenworks.protocols.validation import top_level

__all__ = ["PATH", "decode_countable", "encode_count", "encode_question", "read_count"]

PATH = "/messages/count_tokens"
"""Under an upstream's base URL."""


_COUNTED = ("model", "system", "messages", "tools", "tool_choice", "thinking")
"""What makes a prompt: hosts refuse members that have nothing to do with it."""


class Count(msgspec.Struct):
    input_tokens: int


_DECODER = msgspec.json.Decoder(Count)
_ENCODE = msgspec.json.Encoder().encode


def encode_question(request: Request, model: str) -> bytes:
    """A request of any protocol as the body that asks for its count."""
    if request.protocol == NAME:
        return rewrite_request(request, model)
    members = top_level(encode_request(request, model, stream=False))
    return _ENCODE({name: members[name] for name in _COUNTED if name in members})


def read_count(body: bytes) -> int:
    """ValueError when it is not one."""
    try:
        return _DECODER.decode(body).input_tokens
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None


def encode_count(tokens: int) -> bytes:
    return _ENCODE(Count(tokens))
