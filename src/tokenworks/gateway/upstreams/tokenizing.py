"""Asks an upstream for the tokens of a text: an engine of ours, or a server that has a call for it."""

from collections.abc import Callable

import msgspec

from tokenworks.core.errors import InvalidRequest, UpstreamBroken, UpstreamRejected
from tokenworks.core.target import Target
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.gateway.upstreams.prepare import Outgoing
from tokenworks.gateway.upstreams.watchdog import Watchdog
from tokenworks.protocols.tgi import info
from tokenworks.protocols.tgi.codec import CODEC as TGI
from tokenworks.protocols.worker import types as worker
from tokenworks.protocols.worker.codec import CODEC as WORKER
from tokenworks.snapshot.records import UpstreamRecord

Tokens = list[tuple[int, str]]
"""(id, text) in order."""


class _Piece(msgspec.Struct):
    id: int
    piece: str | list[int]
    """Bytes where they are no text by themselves."""


class _Pieces(msgspec.Struct):
    tokens: list[_Piece]


_WORKER = msgspec.json.Decoder(worker.TokenizeResponse)
_PIECES = msgspec.json.Decoder(_Pieces)
_ENCODE = msgspec.json.Encoder().encode


async def tokenize(upstreams: Upstreams, text: str, upstream: UpstreamRecord, target: Target) -> Tokens:
    """InvalidRequest when this upstream cannot tell."""
    question = _question(text, upstream)
    if question is None:
        raise _cannot()
    outgoing, read = question
    try:
        with Watchdog(target.limits, upstream.provider, lambda: None, stream=False):
            async with upstreams.call(upstream, outgoing, target.limits) as answer:
                return read(await answer.read())
    except UpstreamRejected as error:
        if error.upstream_status in (404, 405):
            raise _cannot() from error
        raise
    except ValueError as error:
        raise UpstreamBroken(f"{upstream.provider} did not tell tokens: {error}") from error


def _question(text: str, upstream: UpstreamRecord) -> tuple[Outgoing, Callable[[bytes], Tokens]] | None:
    """What to send, and how to read the answer."""
    if WORKER.name in upstream.protocols:
        return Outgoing(WORKER, _ENCODE(worker.TokenizeRequest(text)), "/tokenize", {}), _read_worker
    if TGI.name in upstream.protocols:
        return Outgoing(TGI, info.encode_tokenize_request(text), "/tokenize", {}), info.read_tokenize
    if upstream.local:
        body = _ENCODE({"content": text, "with_pieces": True})
        return Outgoing(WORKER, body, "/tokenize", {}, rooted=True), _read_pieces
    return None


def _read_worker(body: bytes) -> Tokens:
    said = _WORKER.decode(body)
    return list(zip(said.ids, said.texts, strict=True))


def _read_pieces(body: bytes) -> Tokens:
    return [
        (each.id, each.piece if isinstance(each.piece, str) else bytes(each.piece).decode("utf-8", "replace"))
        for each in _PIECES.decode(body).tokens
    ]


def _cannot() -> InvalidRequest:
    return InvalidRequest(
        "The default model's provider has no way to tell the tokens of a text.", param="inputs", code="cannot_tokenize"
    )
