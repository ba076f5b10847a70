"""Errors of the Responses API: bodies as chat completions have them, and failures inside a response or its stream."""

import msgspec

from tokenworks.core.errors import TokenworksError
from tokenworks.protocols.openai_chat.errors import encode_error, read_error
from tokenworks.protocols.openai_responses import types as wire

__all__ = ["encode_error", "encode_stream_error", "read_error", "read_failure"]

_ENCODE = msgspec.json.Encoder().encode

_STATUS = {"rate_limit_exceeded": 429, "server_error": 500, "invalid_prompt": 400}


def encode_stream_error(error: TokenworksError) -> bytes:
    """For a stream in which no response began yet; one that did ends with `response.failed`."""
    body = {
        "type": "error",
        "sequence_number": 0,
        "code": error.code,
        "message": error.message,
        "param": error.param,
    }
    return b"event: error\ndata: " + _ENCODE(body) + b"\n\n"


def read_failure(said: wire.Failure | str, *, provider: str = "The upstream") -> TokenworksError:
    """The `error` of a failed response, or of an error event."""
    failure = wire.Failure(message=said) if isinstance(said, str) else said
    code = failure.code
    status = code if isinstance(code, int) and 400 <= code < 600 else _STATUS.get(str(code), 502)
    body = {"message": failure.message, "code": code, "param": failure.param}
    return read_error(status, _ENCODE({"error": body}), provider=provider, retry_after=None)
