"""Errors of Cohere: `{"message": ...}` with a status. https://docs.cohere.com/reference/errors"""

from tokenworks.core.errors import ContextLengthExceeded, Fault, TokenworksError, UpstreamOverloaded, UpstreamRejected
from tokenworks.protocols.openai_chat import errors

_TOO_LONG = ("too many tokens", "too long", "context length", "maximum number of tokens")


def read_error(status: int, body: bytes, *, provider: str, retry_after: float | None) -> TokenworksError:
    lowered = body.decode("utf-8", "replace").lower()
    plain = errors.read_error(status, body, provider=provider, retry_after=retry_after)
    if status in (400, 422) and any(word in lowered for word in _TOO_LONG):
        return ContextLengthExceeded(plain.message, param="messages", provider=provider, upstream_status=status)
    if status == 429 and "trial key" in lowered and "month" in lowered:
        return errors.quota_used_up(provider, status)
    if status == 498:  # a token that has expired or is blocked, not another host's full capacity
        return UpstreamRejected(
            f"{provider} refused the credentials this service holds for it ({status}).",
            code="upstream_authentication",
            fault=Fault.CREDENTIAL,
            provider=provider,
            upstream_status=status,
        )
    if status == 499:
        return UpstreamOverloaded(plain.message, provider=provider, upstream_status=status)
    return plain
