"""Errors in OpenAI's shape, both ways (https://platform.openai.com/docs/guides/error-codes)."""

from typing import Any

import msgspec

from tokenworks.core.errors import (
    CallerError,
    ContentRefused,
    ContextLengthExceeded,
    Fault,
    InvalidRequest,
    LimitReached,
    PermissionDenied,
    RequestTooLarge,
    ServiceError,
    TokenworksError,
    Unauthenticated,
    UpstreamBroken,
    UpstreamOverloaded,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)

_ENCODE = msgspec.json.Encoder().encode
_TOO_LONG = (
    "maximum context length",
    "available context size",
    "exceeds the maximum number of tokens allowed",
    "`max_new_tokens` must be <=",
    "longer than the model's context length",
    "prompt is too long",
)
_POLICY_SAID = ("was flagged", "usage guidelines", "content policy", "safety policies")
_BAD_KEY = ("incorrect api key", "api key not valid", "invalid api key")
"""What hosts say where neither status nor code tells it."""
_LONGEST_QUOTE = 1000
_CONTENT_POLICY = ("content_policy", "content_filter", "ResponsibleAIPolicyViolation", "moderation")
_QUOTA = ("insufficient_quota", "credit_balance", "spend_limit", "usage_limit", "billing")


def encode_error(error: TokenworksError) -> bytes:
    body = {"message": error.message, "type": _type(error), "param": error.param, "code": error.code}
    return _ENCODE({"error": body})


def encode_stream_error(error: TokenworksError) -> bytes:
    return b"data: " + encode_error(error) + b"\n\n"


def _type(error: TokenworksError) -> str:
    match error:
        case LimitReached(is_quota=True):
            return error.code
        case LimitReached():
            return "rate_limit_error"
        case PermissionDenied():
            return "permission_error"
        case Unauthenticated():
            return "authentication_error"
        case CallerError():
            return "invalid_request_error"
        case ServiceError():
            return "server_error"
        case _:
            return "upstream_error"


def read_error(status: int, body: bytes, *, provider: str, retry_after: float | None) -> TokenworksError:
    """An upstream's error answer. Its own words about our credentials are not shown to callers."""
    message, kind, param = _details(body)
    context: dict[str, Any] = {"provider": provider, "upstream_status": status}
    said = f"{provider} answered {status}: {message[:_LONGEST_QUOTE]}" if message else f"{provider} answered {status}."
    if _is_context_length(kind, message):
        return ContextLengthExceeded(message or said, param=param or "messages", **context)
    if status < 500 and any(word in kind for word in _CONTENT_POLICY):
        return ContentRefused(message or said, param=param, **context)
    if status == 429 and any(word in kind for word in _QUOTA):
        status = 402
    if status in (400, 403) and any(words in message.lower() for words in _POLICY_SAID):
        return ContentRefused(message, param=param, **context)
    if status == 400 and any(words in message.lower() for words in _BAD_KEY):
        status = 401
    match status:
        case 400 | 409 | 422:
            return InvalidRequest(message or said, param=param, **context)
        case 413:
            return RequestTooLarge(message or said, **context)
        case 401 | 403:
            return UpstreamRejected(
                f"{provider} refused the credentials this service holds for it ({status}).",
                code="upstream_authentication",
                fault=Fault.CREDENTIAL,
                **context,
            )
        case 402 | 412:
            return quota_used_up(provider, status)
        case 404 | 405:
            return UpstreamRejected(said, code="upstream_not_found", **context)
        case 408 | 504:
            return UpstreamTimeout(said, **context)
        case 429:
            return UpstreamOverloaded(said, retry_after=retry_after or 1.0, fault=Fault.RATE_LIMIT, **context)
        case 498 | 529:
            return UpstreamOverloaded(said, retry_after=retry_after or 1.0, **context)
        case 502 | 503:
            return UpstreamUnavailable(said, retry_after=retry_after or 1.0, fault=Fault.OVERLOAD, **context)
        case _:
            return UpstreamBroken(said, fault=Fault.BROKEN, **context)


def quota_used_up(provider: str, status: int) -> TokenworksError:
    return UpstreamRejected(
        f"{provider} refused: its quota is used up.",
        code="upstream_quota",
        provider=provider,
        upstream_status=status,
        fault=Fault.QUOTA,
    )


def read_stream_error(raw: bytes, *, provider: str = "") -> TokenworksError:
    """The `error` member of a stream's chunk."""
    details = _decode(b'{"error":' + raw + b"}")
    told = (details.get("code"), details.get("status_code"))
    status = next((code for code in told if isinstance(code, int) and 400 <= code < 600), 502)
    return read_error(status, _ENCODE({"error": details}), provider=provider or "The upstream", retry_after=None)


def _details(body: bytes) -> tuple[str, str, str | None]:
    """(message, type and code in one text, param) of an error body of any host."""
    error = _decode(body)
    message = error.get("message") or error.get("detail") or ""
    param = error.get("param")
    kind = f"{error.get('type', '')} {error.get('code', '')}"
    return str(message), kind, param if isinstance(param, str) else None


def _decode(body: bytes) -> dict[str, Any]:
    """The error object of `{"error": ...}`, `{"detail": ...}`, `{"message": ...}`, or plain text as its message."""
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {"message": body[:_LONGEST_QUOTE].decode("utf-8", "replace").strip()}
    if isinstance(decoded, list) and len(decoded) == 1:
        decoded = decoded[0]
    error = decoded.get("error", decoded) if isinstance(decoded, dict) else decoded
    return error if isinstance(error, dict) else {"message": str(error)}


def _is_context_length(kind: str, message: str) -> bool:
    if "context_length_exceeded" in kind or "exceed_context_size" in kind:
        return True
    lowered = message.lower()
    return any(words in lowered for words in _TOO_LONG)
