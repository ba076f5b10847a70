"""`POST /v1/messages/count_tokens`: how many tokens a request's prompt has, without asking for an answer."""

import msgspec

from tokenworks.protocols.anthropic_messages.requests import decode_countable, rewrite_request

__all__ = ["PATH", "decode_countable", "encode_count", "read_count", "rewrite_request"]

PATH = "/messages/count_tokens"
"""Under an upstream's base URL."""


class Count(msgspec.Struct):
    input_tokens: int


_DECODER = msgspec.json.Decoder(Count)
_ENCODE = msgspec.json.Encoder().encode


def read_count(body: bytes) -> int:
    """ValueError when it is not one."""
    try:
        return _DECODER.decode(body).input_tokens
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None


def encode_count(tokens: int) -> bytes:
    return _ENCODE(Count(tokens))
