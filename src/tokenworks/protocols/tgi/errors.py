"""Errors in TGI's shape, both ways: `{error, error_type}`, and status codes of its own."""

import msgspec

from tokenworks.core.errors import (
    CallerError,
    ContextLengthExceeded,
    InvalidRequest,
    LimitReached,
    RequestTooLarge,
    ServiceError,
    TokenworksError,
    UpstreamBroken,
    UpstreamOverloaded,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tokenworks.protocols.openai_chat.errors import read_error as read_any_error

_ENCODE = msgspec.json.Encoder().encode


class _Body(msgspec.Struct):
    error: str
    error_type: str = ""


_BODY = msgspec.json.Decoder(_Body)


def _kind(error: TokenworksError) -> tuple[int, str]:
    """(status, error_type). Without a type clients go by the status, which says more about keys and paths."""
    match error:
        case InvalidRequest() | ContextLengthExceeded():
            return 422, "validation"
        case RequestTooLarge():
            return error.status, "validation"
        case LimitReached() | UpstreamOverloaded():
            return 429, "overloaded"
        case CallerError():
            return error.status, ""
        case ServiceError() | UpstreamUnavailable() | UpstreamTimeout():
            return error.status, "generation"
        case UpstreamBroken():
            return 500, "incomplete_generation"
        case _:
            return 424, "generation"


def error_status(error: TokenworksError) -> int:
    return _kind(error)[0]


def encode_error(error: TokenworksError) -> bytes:
    _, kind = _kind(error)
    return _ENCODE({"error": error.message} | ({"error_type": kind} if kind else {}))


def encode_stream_error(error: TokenworksError) -> bytes:
    return b"data:" + encode_error(error) + b"\n\n"


def read_error(status: int, body: bytes, *, provider: str, retry_after: float | None) -> TokenworksError:
    """422 is the caller's mistake, 424 a model that failed; the rest means what it means everywhere."""
    try:
        said = _BODY.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return read_any_error(status, body, provider=provider, retry_after=retry_after)
    if said.error_type == "validation" and "must be <=" in said.error and "max_new_tokens" in said.error:
        return ContextLengthExceeded(said.error, param="inputs", provider=provider, upstream_status=status)
    if status == 424:
        return UpstreamBroken(f"{provider} answered 424: {said.error}", provider=provider, upstream_status=status)
    return read_any_error(status, _ENCODE({"message": said.error}), provider=provider, retry_after=retry_after)


_STATUS = {"validation": 422, "overloaded": 429, "generation": 424, "incomplete_generation": 500}


def read_stream_error(message: str, kind: str | None, *, provider: str = "The upstream") -> TokenworksError:
    body = _ENCODE({"error": message, "error_type": kind or ""})
    return read_error(_STATUS.get(kind or "", 502), body, provider=provider, retry_after=None)
