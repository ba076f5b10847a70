"""Errors as problem details (RFC 7807): what Replicate's client reads."""

from http import HTTPStatus

import msgspec

from tokenworks.core.errors import ContextLengthExceeded, InvalidRequest, LimitReached, TokenworksError

_ENCODE = msgspec.json.Encoder().encode


def error_status(error: TokenworksError) -> int:
    if isinstance(error, LimitReached) and error.is_quota:
        return 402
    return 422 if isinstance(error, InvalidRequest | ContextLengthExceeded) else error.status


def encode_error(error: TokenworksError) -> bytes:
    status = error_status(error)
    detail = error.message
    if status == 429 and error.retry_after is not None:
        detail = f"Request was throttled. Your rate limit resets in ~{max(1, round(error.retry_after))}s. {detail}"
    body = {"title": HTTPStatus(status).phrase, "detail": detail, "status": status}
    return _ENCODE(body | ({"invalid_fields": [{"field": error.param}]} if error.param else {}))
