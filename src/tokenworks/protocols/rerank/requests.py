"""Requests of rerank: the caller's body -> Request, and Request -> an upstream's body."""

from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.request import Request, Rerank
from tokenworks.protocols.rerank import types as wire
from tokenworks.protocols.validation import decode, members_of, top_level
from tokenworks.protocols.whole import refuse_stream

NAME = "rerank"
_DECODER = msgspec.json.Decoder(wire.RerankRequest)
_ENCODE = msgspec.json.Encoder().encode

HONOURED = frozenset(wire.RerankRequest.__struct_fields__)


def decode_request(body: bytes) -> Request:
    wired = decode(_DECODER, body)
    refuse_stream(wired.stream)
    documents = [_text(document, wired.rank_fields, index) for index, document in enumerate(wired.documents)]
    return Request(
        model=wired.model,
        task=Rerank(wired.query, documents, wired.top_n, bool(wired.return_documents)),
        protocol=NAME,
        body=body,
        ignored=sorted(members_of(body).keys() - HONOURED),
    )


def _text(document: str | dict[str, Any], fields: list[str] | None, index: int) -> str:
    """The text of a document to be judged; of an object with several fields a line each."""
    if isinstance(document, str):
        return document
    chosen = fields or (["text"] if "text" in document else list(document))
    texts = {name: document[name] for name in chosen if isinstance(document.get(name), str)}
    if not texts:
        where = f"documents[{index}]"
        raise InvalidRequest(f"'{where}' is an object without text in {chosen or 'it'}.", param=where)
    return (
        next(iter(texts.values())) if len(texts) == 1 else "\n".join(f"{name}: {text}" for name, text in texts.items())
    )


def rewrite_request(request: Request, model: str) -> bytes:
    """The caller's body under the upstream's model name."""
    members: dict[str, Any] = dict(top_level(request.body))
    members["model"] = model
    return _ENCODE(members)


def encode_request(request: Request, model: str, *, stream: bool) -> bytes:
    task = request.task
    if not isinstance(task, Rerank):
        raise InvalidRequest("This model only ranks documents.", param="model")
    body: dict[str, Any] = {
        "model": model,
        "query": task.query,
        "documents": task.documents,
        "top_n": task.top_n,
        "return_documents": task.return_documents or None,
    }
    return _ENCODE({name: value for name, value in body.items() if value is not None})
