"""The error tree. Raised deep, rendered once at the edge in the caller's protocol.

TokenworksError
├── CallerError                    the caller can fix it: never retried, never blamed on an upstream
│   ├── InvalidRequest             400  malformed, wrong type, unknown content; `param` names the field
│   ├── ContextLengthExceeded      400  prompt + max output do not fit the model
│   ├── ContentRefused             400  an upstream's content policy forbids it
│   ├── Unauthenticated            401  no key, or a key we do not know
│   ├── PermissionDenied           403  a known key that may not do this
│   ├── NotFound                   404  unknown path, model or object
│   ├── MethodNotAllowed           405
│   ├── RequestTooLarge            413  body or headers over the limit
│   └── LimitReached               429  a rate limit; `retry_after` is exact
├── UpstreamError                  an upstream failed: `provider`, `status` and the cause are kept
│   ├── UpstreamUnavailable        503  nothing answers: refused, reset, no live replica
│   ├── UpstreamTimeout            504  silent beyond the route's connect, first-token, idle or total limit
│   ├── UpstreamOverloaded         503  it said 429, 503 or 529
│   ├── UpstreamRejected           502  it refused our credentials, our quota or our translation
│   └── UpstreamBroken             502  garbled, cut, or ended without a finish
└── ServiceError                   ours
    ├── Unavailable                503  starting, draining, or a plane we need is away
    └── InternalError              500  always a bug
"""

from enum import StrEnum

from tokenworks.core.allowance import Allowance


class Fault(StrEnum):
    """What went wrong, as far as it decides what to do next: docs/failover.md has the table."""

    OURS = "ours"
    CALLER = "caller"
    CONTEXT_LENGTH = "context_length"
    CONTENT_POLICY = "content_policy"
    CREDENTIAL = "credential"
    QUOTA = "quota"
    RATE_LIMIT = "rate_limit"
    OVERLOAD = "overload"
    BROKEN = "broken"
    """It says itself that it failed: a 500."""
    UNSUITABLE = "unsuitable"
    """It does not do what is asked, which is no caller's mistake: an unknown model, a protocol that cannot say it."""
    NETWORK = "network"
    GARBLED = "garbled"
    SILENT = "silent"
    SLOW = "slow"
    """The route's time was over before it was done."""
    CUT = "cut"


class TokenworksError(Exception):
    """`message` goes to the caller; `code` is the machine-readable cause; `param` names the offending field.

    `fault` says what kind of failure it is where the class alone does not.
    `provider` and `upstream_status` are set when an upstream said so (status None: it never answered).
    """

    status = 500
    code = "internal_error"
    fault = Fault.OURS
    request_id = ""
    """Of the request that failed: set by the edge, for protocols that tell it in the body."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        provider: str | None = None,
        upstream_status: int | None = None,
        fault: Fault | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.provider = provider
        self.upstream_status = upstream_status
        if code is not None:
            self.code = code
        if fault is not None:
            self.fault = fault


class CallerError(TokenworksError):
    status = 400
    code = "invalid_request"
    fault = Fault.CALLER


class InvalidRequest(CallerError):
    pass


class ContextLengthExceeded(CallerError):
    code = "context_length_exceeded"
    fault = Fault.CONTEXT_LENGTH


class ContentRefused(CallerError):
    code = "content_policy_violation"
    fault = Fault.CONTENT_POLICY


class Unauthenticated(CallerError):
    status = 401
    code = "invalid_api_key"


class PermissionDenied(CallerError):
    status = 403
    code = "permission_denied"


class NotFound(CallerError):
    status = 404
    code = "not_found"


class MethodNotAllowed(CallerError):
    status = 405
    code = "method_not_allowed"


class RequestTooLarge(CallerError):
    status = 413
    code = "request_too_large"


class LimitReached(CallerError):
    status = 429
    code = "rate_limit_exceeded"
    allowance: Allowance | None = None
    """What is left of the limit that has no room."""

    @property
    def is_quota(self) -> bool:
        """A budget is used up: it is about money, not about speed."""
        return self.code == "insufficient_quota"


class UpstreamError(TokenworksError):
    status = 502
    code = "upstream_error"
    fault = Fault.BROKEN


class UpstreamUnavailable(UpstreamError):
    status = 503
    code = "upstream_unavailable"
    fault = Fault.NETWORK


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
    fault = Fault.SILENT


class UpstreamOverloaded(UpstreamError):
    status = 503
    code = "upstream_overloaded"
    fault = Fault.OVERLOAD


class UpstreamRejected(UpstreamError):
    code = "upstream_rejected"
    fault = Fault.UNSUITABLE


class UpstreamBroken(UpstreamError):
    code = "upstream_broken"
    fault = Fault.GARBLED


class ServiceError(TokenworksError):
    pass


class Unavailable(ServiceError):
    status = 503
    code = "unavailable"


class InternalError(ServiceError):
    pass
