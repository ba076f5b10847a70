"""The error tree. Raised deep, rendered once at the edge in the caller's protocol.

TokenworksError
├── CallerError                    the caller can fix it: never retried, never blamed on an upstream
│   ├── InvalidRequest             400  malformed, wrong type, unknown content; `param` names the field
│   ├── ContextLengthExceeded      400  prompt + max output do not fit the model
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


class TokenworksError(Exception):
    """`message` goes to the caller; `code` is the machine-readable cause; `param` names the offending field.

    `provider` and `upstream_status` are set when an upstream said so (status None: it never answered).
    """

    status = 500
    code = "internal_error"
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
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.provider = provider
        self.upstream_status = upstream_status
        if code is not None:
            self.code = code


class CallerError(TokenworksError):
    status = 400
    code = "invalid_request"


class InvalidRequest(CallerError):
    pass


class ContextLengthExceeded(CallerError):
    code = "context_length_exceeded"


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


class UpstreamError(TokenworksError):
    status = 502
    code = "upstream_error"


class UpstreamUnavailable(UpstreamError):
    status = 503
    code = "upstream_unavailable"


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"


class UpstreamOverloaded(UpstreamError):
    status = 503
    code = "upstream_overloaded"


class UpstreamRejected(UpstreamError):
    code = "upstream_rejected"


class UpstreamBroken(UpstreamError):
    code = "upstream_broken"


class ServiceError(TokenworksError):
    pass


class Unavailable(ServiceError):
    status = 503
    code = "unavailable"


class InternalError(ServiceError):
    pass
