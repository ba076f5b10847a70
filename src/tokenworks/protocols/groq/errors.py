"""Errors as Groq tells them (https://console.groq.com/docs/errors)."""

import msgspec

from tokenworks.core.errors import TokenworksError
from tokenworks.protocols.openai_chat import errors

_ENCODE = msgspec.json.Encoder().encode
_PASSED_ON = (422, 424, 498)
"""Statuses of upstreams that mean the same here: 498 is a flex tier without room."""


def encode_error(error: TokenworksError) -> bytes:
    body = msgspec.json.decode(errors.encode_error(error))["error"]
    return _ENCODE({"error": {name: value for name, value in body.items() if value is not None}})


def encode_stream_error(error: TokenworksError) -> bytes:
    return b"data: " + encode_error(error) + b"\n\n"


def error_status(error: TokenworksError) -> int:
    passed_on = error.upstream_status in _PASSED_ON
    return error.upstream_status if passed_on and error.upstream_status is not None else error.status
