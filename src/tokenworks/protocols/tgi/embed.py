"""Embeddings as Text Embeddings Inference answers them (https://huggingface.github.io/text-embeddings-inference).

Served only: `/embed`, and `/` when nothing in the body asks to generate. The answer is a bare list of vectors.
"""

import math
from typing import Annotated, Literal

import msgspec

from tokenworks.core.errors import TokenworksError
from tokenworks.core.events import Event, Vector
from tokenworks.core.request import Embeddings, Request
from tokenworks.protocols.base import Codec, Observation, Relay
from tokenworks.protocols.openai_chat.types import Count
from tokenworks.protocols.openai_embeddings.types import Tokens
from tokenworks.protocols.tgi import errors
from tokenworks.protocols.validation import decode, members_of, top_level
from tokenworks.protocols.whole import WholeOnly

NAME = "tgi_embed"
ONLY_SERVED = "this dialect is served, never called"
_ENCODE = msgspec.json.Encoder().encode


class EmbedRequest(msgspec.Struct):
    inputs: str | Annotated[list[str | Tokens], msgspec.Meta(min_length=1)]
    dimensions: Count | None = None
    normalize: bool | None = None
    prompt_name: str | None = None
    encoding_format: Literal["float"] | None = None


_DECODER = msgspec.json.Decoder(EmbedRequest)
HONOURED = frozenset(EmbedRequest.__struct_fields__)


def is_meant(body: bytes) -> bool:
    """Clients that generate always send `parameters` or `stream`, those that embed never do."""
    try:
        members = top_level(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return "inputs" in members and not members.keys() & {"parameters", "stream"}


def decode_request(body: bytes) -> Request:
    wired = decode(_DECODER, body)
    inputs: list[str | list[int]] = [wired.inputs] if isinstance(wired.inputs, str) else wired.inputs
    ignored = sorted(members_of(body).keys() - HONOURED)
    if wired.normalize is False:
        ignored.append("normalize")  # a model that normalises cannot be told not to
    return Request(
        model="",
        task=Embeddings(inputs, wired.dimensions),
        protocol=NAME,
        body=body,
        ignored=ignored,
        own=["prompt_name"] if wired.prompt_name is not None else [],
        options={"normalize": wired.normalize is not False},
    )


def encode_response(request: Request, events: list[Event], response_id: str, created: int) -> bytes:
    vectors = {event.index: event.values for event in events if isinstance(event, Vector)}
    unit = request.options.get("normalize")
    return _ENCODE([_normalized(values) if unit else values for _, values in sorted(vectors.items())])


def _normalized(values: list[float]) -> list[float]:
    """Of length one; a vector that is so already stays as it came."""
    norm = math.sqrt(math.fsum([value * value for value in values]))
    return values if norm == 0 or math.isclose(norm, 1, rel_tol=1e-4) else [value / norm for value in values]


class Embed(WholeOnly):
    name = NAME
    path = ""
    tasks: tuple[type, ...] = ()

    decode_request = staticmethod(decode_request)
    encode_response = staticmethod(encode_response)
    encode_error = staticmethod(errors.encode_error)
    read_error = staticmethod(errors.read_error)

    def error_status(self, error: TokenworksError) -> int:
        return errors.error_status(error)

    def response_id(self, request_id: str) -> str:
        return request_id

    def encode_request(self, request: Request, model: str, *, stream: bool) -> bytes:
        raise NotImplementedError(ONLY_SERVED)

    def rewrite_request(self, request: Request, model: str) -> bytes:
        raise NotImplementedError(ONLY_SERVED)

    def passthrough(self, request: Request, observation: Observation) -> Relay:
        raise NotImplementedError(ONLY_SERVED)

    def read_response(self, body: bytes) -> list[Event]:
        raise NotImplementedError(ONLY_SERVED)


CODEC: Codec = Embed()
