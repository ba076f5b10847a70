"""Errors of Bedrock: `{"message": ...}` with a status, or an exception in a stream.
https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html"""

from typing import Any

import msgspec

from tokenworks.core.errors import (
    ContentRefused,
    ContextLengthExceeded,
    Fault,
    TokenworksError,
    UpstreamOverloaded,
    UpstreamRejected,
    UpstreamTimeout,
)
from tokenworks.protocols.bedrock_converse import types as wire
from tokenworks.protocols.openai_chat import errors

_DECODER = msgspec.json.Decoder(wire.Problem)
_EXCEPTIONS = {
    "throttlingException": 429,
    "validationException": 400,
    "modelTimeoutException": 408,
    "serviceUnavailableException": 503,
    "internalServerException": 500,
    "modelStreamErrorException": 424,
}
_UNKNOWN_MODEL = (
    "model identifier is invalid",
    "on-demand throughput isn",
    "access to the model",
    "end of its life",
)
_TOO_LONG = ("too long", "too many input tokens", "exceeds the maximum", "context window", "maximum tokens")
_POLICY = ("content filter", "content policy", "guardrail")


def read_error(status: int, body: bytes, *, provider: str, retry_after: float | None) -> TokenworksError:
    message = _message(body)
    lowered = message.lower()
    context: dict[str, Any] = {"provider": provider, "upstream_status": status}
    if status in (400, 403, 404) and any(word in lowered for word in _UNKNOWN_MODEL):
        said = f"{provider} answered {status}: {message}"
        return UpstreamRejected(said, code="upstream_not_found", fault=Fault.UNSUITABLE, **context)
    if status == 400 and any(word in lowered for word in _TOO_LONG):
        return ContextLengthExceeded(message, param="messages", **context)
    if status == 400 and any(word in lowered for word in _POLICY):
        return ContentRefused(message, **context)
    if status == 400 and "quota" in lowered:
        return errors.quota_used_up(provider, status)
    if status == 429 and "not ready" in lowered:
        said = f"{provider} answered 429: {message}"
        return UpstreamOverloaded(said, retry_after=retry_after or 5.0, fault=Fault.OVERLOAD, **context)
    if status == 408:
        return UpstreamTimeout(f"{provider} answered 408: {message}", **context)
    return errors.read_error(status, body, provider=provider, retry_after=retry_after)


def read_exception(headers: dict[str, str], payload: bytes) -> TokenworksError:
    status = _EXCEPTIONS.get(headers.get(":exception-type", ""), 500)
    told = payload if _message(payload) else msgspec.json.encode({"message": headers.get(":error-message", "")})
    return read_error(status, told, provider="The upstream", retry_after=None)


def _message(body: bytes) -> str:
    try:
        problem = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    return problem.message or problem.Message
