"""Embeddings in TEI's dialect: a bare list of vectors, of length one unless the caller says otherwise."""

import json

import pytest

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.events import Vector
from tokenworks.core.request import Embeddings, Request
from tokenworks.protocols import codec

CODEC = codec("tgi_embed")


def asked(**members: object) -> Request:
    return CODEC.decode_request(json.dumps({"inputs": "a", **members}).encode())


def test_inputs_and_what_belongs_to_them() -> None:
    request = asked(inputs=["a", "b"], dimensions=8, truncate=True, normalize=False)
    assert (request.model, request.task, request.protocol) == ("", Embeddings(["a", "b"], 8), "tgi_embed")
    assert request.ignored == ["truncate", "normalize"]
    assert asked(prompt_name="query").own == ["prompt_name"]


@pytest.mark.parametrize("members", [{"inputs": []}, {"inputs": 5}, {"dimensions": 0}, {"encoding_format": "base64"}])
def test_what_cannot_be_is_refused_by_name(members: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(**members)
    assert refused.value.param == next(iter(members))


def test_vectors_are_bare_and_of_length_one() -> None:
    events = [Vector(1, [0.0, 2.0]), Vector(0, [3.0, 4.0]), Vector(2, [0.0, 0.0])]
    assert json.loads(CODEC.encode_response(asked(), events, "id", 1)) == [[0.6, 0.8], [0.0, 1.0], [0.0, 0.0]]
    assert json.loads(CODEC.encode_response(asked(normalize=False), events, "id", 1))[0] == [3.0, 4.0]
