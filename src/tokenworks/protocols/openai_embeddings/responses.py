"""Answers of embeddings: an upstream's body -> events, events -> the caller's body, and the relay between equals."""

import binascii
import sys
from array import array
from base64 import b64decode, b64encode
from typing import Any

import msgspec

from tokenworks.core.events import Event, Finished, FinishReason, Started, UsageReport, Vector
from tokenworks.core.request import Embeddings, Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.openai_embeddings import types as wire
from tokenworks.protocols.translation import require_vectors
from tokenworks.protocols.whole import WholeRelay

_DECODER = msgspec.json.Decoder(wire.Answer)
_SKIM = msgspec.json.Decoder(wire.Skimmed)
_ENCODE = msgspec.json.Encoder().encode


def read_response(body: bytes) -> list[Event]:
    try:
        answer = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if not answer.data:
        raise ValueError("it has no vectors")
    events: list[Event] = [Started("", answer.model or "")]
    for position, item in enumerate(answer.data):
        events.append(Vector(position if item.index is None else item.index, _values(item.embedding)))
    if usage := _read_usage(answer.usage):
        events.append(UsageReport(usage))
    return [*events, Finished(FinishReason.STOP)]


def _values(given: str | list[float]) -> list[float]:
    if not isinstance(given, str):
        return given
    try:
        values = array("f", b64decode(given, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"an embedding is not base64 of float32 numbers: {error}") from None
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def _base64(values: list[float]) -> str:
    packed = array("f", values)
    if sys.byteorder == "big":
        packed.byteswap()
    return b64encode(packed).decode()


def _read_usage(given: wire.UsageBody | None) -> Usage | None:
    if given is None:
        return None
    counted = given.prompt_tokens if given.prompt_tokens is not None else given.total_tokens
    return None if counted is None else Usage(input=counted)


def encode_response(request: Request, events: list[Event], response_id: str, created: int) -> bytes:
    usage, model = Usage(), request.model
    vectors: dict[int, list[float]] = {}
    for event in events:
        match event:
            case Started():
                model = event.model or model
            case UsageReport():
                usage = event.usage
            case Vector():
                vectors[event.index] = event.values
    packed = isinstance(request.task, Embeddings) and request.task.encoding == "base64"
    data: list[dict[str, Any]] = [
        {"object": "embedding", "index": index, "embedding": _base64(values) if packed else values}
        for index, values in sorted(vectors.items())
    ]
    counted = {"prompt_tokens": usage.prompt, "total_tokens": usage.total}
    return _ENCODE({"object": "list", "data": data, "model": model, "usage": counted})


class Passthrough(WholeRelay):
    def _see_whole(self, body: bytes) -> None:
        try:
            answer = _SKIM.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from None
        require_vectors(self._request, len(answer.data))
        self.observation.usage = _read_usage(answer.usage)
        self.observation.response_model = answer.model or ""
