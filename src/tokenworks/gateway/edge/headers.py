"""Headers of answers and errors, as the clients' retry logic reads them."""

import math
import re
from collections.abc import Sequence

import msgspec

from tokenworks.core.errors import InvalidRequest, LimitReached, TokenworksError, UpstreamRejected
from tokenworks.gateway.edge.exchange import Exchange, Header
from tokenworks.protocols.base import TellsAllowances

LONGEST_RETRY = 60
"""Seconds. Clients ignore more than that, or obey it without any bound."""
PATIENCE = 120
"""Seconds. Who would have to wait for longer is told not to try again by itself."""

MOST_NAMES = 50
LONGEST_NAME = 60
_ODD = re.compile(r"[^A-Za-z0-9_.-]")
_ODD_IN_MODEL = re.compile(r"[^\x21-\x7e]")

_REQUEST_ID = (b"x-request-id", b"request-id", b"x-tokenworks-request-id")
"""Each family's clients look for it under another name."""
_ORGANIZATION = (b"openai-organization", b"anthropic-organization-id")
_VERSION = (b"openai-version", b"2020-10-01")
"""Of the protocol: the only one that there ever was."""


class Answerer(msgspec.Struct, frozen=True):
    """Who really answers: the provider, its own name for the model, and how many attempts it took to get there.

    `ignored` are the parameters that have no effect there. `residency` says which policies its labels prove."""

    provider: str
    model: str
    attempts: int
    ignored: tuple[str, ...] = ()
    residency: str = ""

    def headers(self) -> list[Header]:
        found = [
            (b"x-tokenworks-provider", self.provider.encode()),
            (b"x-tokenworks-model", _ODD_IN_MODEL.sub("?", self.model).encode()),
            (b"x-tokenworks-attempts", b"%d" % self.attempts),
        ]
        if self.residency:
            found.append((b"x-tokenworks-residency", self.residency.encode()))
        return found

    def as_comment(self) -> bytes:
        """The same at the end of a stream whose head named another."""
        return b": " + b", ".join(b"%s=%s" % header for header in self.headers()) + b"\n\n"


def of_answer(exchange: Exchange, answerer: Answerer | None = None) -> list[Header]:
    request_id = exchange.request_id.encode()
    headers = [(name, request_id) for name in _REQUEST_ID]
    headers.append((b"openai-processing-ms", str(round(exchange.age() * 1000)).encode()))
    headers.append(_VERSION)
    if exchange.organization:
        organization = exchange.organization.encode()
        headers += [(name, organization) for name in _ORGANIZATION]
    if exchange.allowances and isinstance(exchange.codec, TellsAllowances):
        headers += exchange.codec.allowance_headers(exchange.allowances)
    if exchange.degraded:
        headers.append((b"x-tokenworks-limits", b"degraded"))
    if exchange.ended:
        headers.append((b"x-tokenworks-ended", exchange.ended.encode("ascii", "replace")))
    if lost := exchange.notes.get("lost"):
        headers.append((b"x-tokenworks-lost", lost.encode()))
    if exchange.via is not None:
        headers.append((b"x-tokenworks-alias", _ODD_IN_MODEL.sub("?", exchange.via.alias).encode()))
        headers.append((b"x-tokenworks-alias-version", b"%d" % exchange.via.version))
    if exchange.guarded:
        headers.append((b"x-tokenworks-guardrails", exchange.guarded.encode("ascii", "replace")))
    headers += exchange.cached
    if exchange.charge is not None:
        headers.append((b"x-tokenworks-cost-nano-usd", b"%d" % exchange.charge))
    if answerer is not None:
        headers += answerer.headers()
    if ignored := exchange.ignored if answerer is None else answerer.ignored:
        headers.append((b"x-tokenworks-ignored", ",".join(map(_safe, ignored[:MOST_NAMES])).encode()))
    return headers


def _safe(name: str) -> str:
    """The callers chose it: a header can carry less than a JSON key, and not everything of any length."""
    return _ODD.sub("?", name[:LONGEST_NAME])


def of_error(exchange: Exchange, error: TokenworksError) -> list[Header]:
    if isinstance(error, LimitReached) and error.allowance is not None:
        exchange.allowances = [error.allowance]
    headers = of_answer(exchange)
    if error.provider is not None:
        headers.append((b"x-tokenworks-provider", error.provider.encode()))
    if (attempts := exchange.notes.get("attempts")) is not None:
        headers.append((b"x-tokenworks-attempts", b"%d" % attempts))
    if error.retry_after is not None and not _hopeless(error):
        seconds = min(error.retry_after, LONGEST_RETRY)
        headers.append((b"retry-after", str(max(1, math.ceil(seconds))).encode()))
        headers.append((b"retry-after-ms", str(math.ceil(seconds * 1000)).encode()))
    elif _hopeless(error):
        headers.append((b"x-should-retry", b"false"))
    if exchange.has_unread_body():
        headers.append((b"connection", b"close"))
    return headers


def _hopeless(error: TokenworksError) -> bool:
    """Its status makes clients try again, which would not help: a quota used up, credentials refused."""
    if isinstance(error, LimitReached):
        return error.retry_after is None or error.retry_after > PATIENCE
    return isinstance(error, UpstreamRejected)


def strict(exchange: Exchange) -> bool:
    """Whether the caller wants an error in place of a parameter without effect."""
    return (exchange.header(b"x-tokenworks-strict") or b"").lower() in (b"true", b"1")


def require_effect(exchange: Exchange, ignored: Sequence[str]) -> None:
    """InvalidRequest for a parameter without effect, where the caller wants that."""
    if ignored and strict(exchange):
        raise InvalidRequest(f"'{ignored[0]}' has no effect here.", param=ignored[0], code="unsupported_parameter")
