"""Errors in Anthropic's shape, both ways (https://platform.claude.com/docs/en/api/errors)."""

import msgspec

from tokenworks.core.errors import ContextLengthExceeded, LimitReached, TokenworksError, UpstreamOverloaded
from tokenworks.protocols.anthropic_messages import types as wire
from tokenworks.protocols.openai_chat import errors as other

_ENCODE = msgspec.json.Encoder().encode
_BILLING, _OVERLOADED = 402, 529

_TYPES = {
    401: "authentication_error",
    _BILLING: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    _OVERLOADED: "overloaded_error",
}
_STATUSES = {kind: status for status, kind in _TYPES.items()} | {"invalid_request_error": 400}


def error_status(error: TokenworksError) -> int:
    if isinstance(error, UpstreamOverloaded):
        return _OVERLOADED
    return _BILLING if isinstance(error, LimitReached) and error.is_quota else error.status


def encode_error(error: TokenworksError) -> bytes:
    status = error_status(error)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    details = {"code": error.code, "param": error.param}
    if error.param == "thread":
        details["error_code"] = error.code  # where the client's own helpers look
    body = {"type": kind, "message": error.message, "details": details}
    return _ENCODE({"type": "error", "error": body, "request_id": error.request_id or None})


def encode_stream_error(error: TokenworksError) -> bytes:
    return b"event: error\ndata: " + encode_error(error) + b"\n\n"


def read_error(status: int, body: bytes, *, provider: str, retry_after: float | None) -> TokenworksError:
    """An upstream's error answer. Its words about our account with it are not shown to callers."""
    if status == 400 and b"prompt is too long" in body:
        error = other.read_error(status, body, provider=provider, retry_after=retry_after)
        return ContextLengthExceeded(error.message, param="messages", provider=provider, upstream_status=status)
    if status == 400 and b"credit balance is too low" in body:
        return other.quota_used_up(provider, status)
    return other.read_error(status, body, provider=provider, retry_after=retry_after)


def read_stream_error(said: wire.ErrorBody | None) -> TokenworksError:
    """The error event of a stream."""
    error = said or wire.ErrorBody()
    status = _STATUSES.get(error.type, 500)
    return read_error(status, _ENCODE({"error": error}), provider="The upstream", retry_after=None)
