"""Requests of embeddings: the caller's body -> Request, and Request -> an upstream's body."""

from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.request import Embeddings, Request
from tokenworks.protocols.openai_embeddings import types as wire
from tokenworks.protocols.validation import decode, members_of, top_level
from tokenworks.protocols.whole import refuse_stream

NAME = "openai_embeddings"
_DECODER = msgspec.json.Decoder(wire.EmbeddingRequest)
_ENCODE = msgspec.json.Encoder().encode

WITHOUT_EFFECT = frozenset({"user"})
HONOURED = frozenset(wire.EmbeddingRequest.__struct_fields__) - WITHOUT_EFFECT


def decode_request(body: bytes) -> Request:
    wired = decode(_DECODER, body)
    refuse_stream(wired.stream)
    return Request(
        model=wired.model,
        task=Embeddings(_inputs(wired.input), wired.dimensions, wired.encoding_format or "float"),
        protocol=NAME,
        body=body,
        user=wired.user,
        ignored=sorted(members_of(body).keys() - HONOURED),
    )


def _inputs(given: str | list[str | list[int] | int]) -> list[str | list[int]]:
    """Text, texts, token ids, or lists of token ids -> one entry for each vector."""
    if isinstance(given, str):
        return [given]
    ids = [item for item in given if isinstance(item, int)]
    if ids and len(ids) != len(given):
        raise InvalidRequest("'input' must be text, a list of texts, or token ids.", param="input")
    return [ids] if ids else [item for item in given if not isinstance(item, int)]


def rewrite_request(request: Request, model: str) -> bytes:
    """The caller's body under the upstream's model name."""
    members: dict[str, Any] = dict(top_level(request.body))
    members["model"] = model
    return _ENCODE(members)


def encode_request(request: Request, model: str, *, stream: bool) -> bytes:
    task = request.task
    if not isinstance(task, Embeddings):
        raise InvalidRequest("This model only makes embeddings.", param="model")
    body: dict[str, Any] = {
        "model": model,
        "input": task.inputs,
        "encoding_format": task.encoding,
        "dimensions": task.dimensions,
        "user": request.user,
    }
    return _ENCODE({name: value for name, value in body.items() if value is not None})
