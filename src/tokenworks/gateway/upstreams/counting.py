"""Asks an upstream how many tokens a prompt has: who speaks the protocol that asks, or an engine of ours."""

from collections.abc import Callable

import msgspec

from tokenworks.core.errors import InvalidRequest, UpstreamBroken, UpstreamRejected
from tokenworks.core.request import Request
from tokenworks.core.target import Target
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.gateway.upstreams.prepare import Outgoing, own_headers
from tokenworks.gateway.upstreams.watchdog import Watchdog
from tokenworks.protocols.anthropic_messages import counting
from tokenworks.protocols.anthropic_messages.codec import CODEC as MESSAGES
from tokenworks.protocols.worker import types as worker
from tokenworks.protocols.worker.codec import CODEC as WORKER
from tokenworks.protocols.worker.requests import encode_render
from tokenworks.snapshot.records import UpstreamRecord

_RENDERED = msgspec.json.Decoder(worker.RenderResponse)


async def count_tokens(upstreams: Upstreams, request: Request, upstream: UpstreamRecord, target: Target) -> int:
    """InvalidRequest when this upstream cannot tell."""
    if upstream.local:
        await upstreams.images.bring(request)
    outgoing, read = _question(request, upstream, target.model)
    try:
        with Watchdog(target.limits, upstream.provider, lambda: None, stream=False):
            async with upstreams.call(upstream, outgoing, target.limits) as answer:
                return read(await answer.read())
    except UpstreamRejected as error:
        if error.upstream_status in (404, 405):
            raise _cannot(request) from error
        raise
    except ValueError as error:
        raise UpstreamBroken(f"{upstream.provider} did not tell a number of tokens: {error}") from error


def _question(request: Request, upstream: UpstreamRecord, model: str) -> tuple[Outgoing, Callable[[bytes], int]]:
    """What to send, and how to read the number in the answer."""
    if WORKER.name in upstream.protocols:
        return Outgoing(WORKER, encode_render(request), "/render", {}), _read_rendered
    if upstream.local or MESSAGES.name in upstream.protocols:
        # Servers of engines count for this protocol also where they are called in another.
        body = counting.encode_question(request, model)
        return Outgoing(MESSAGES, body, counting.PATH, own_headers(MESSAGES, request)), counting.read_count
    raise _cannot(request)


def _read_rendered(body: bytes) -> int:
    return len(_RENDERED.decode(body).ids)


def _cannot(request: Request) -> InvalidRequest:
    return InvalidRequest(
        f"The tokens of the model '{request.model}' cannot be counted without calling it: its provider has no way to.",
        param="model",
        code="cannot_count_tokens",
    )
