"""Embeddings: what is taken, what is refused by name, and vectors that stay exact both ways."""

import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.errors import InvalidRequest, UpstreamBroken, UpstreamRejected
from tokenworks.core.events import Finished, FinishReason, UsageReport, Vector
from tokenworks.core.request import Conversation, Embeddings, Request
from tokenworks.core.usage import Usage
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation
from tokenworks.protocols.translation import Translation

CODEC = codec("openai_embeddings")
FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def asked(**members: object) -> Request:
    return CODEC.decode_request(json.dumps({"model": "m", "input": "hello", **members}).encode())


@pytest.mark.parametrize(
    ("given_input", "inputs"),
    [
        ("hello", ["hello"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        (["a", [1]], ["a", [1]]),
        ("", [""]),
    ],
)
def test_every_form_of_input_becomes_one_entry_per_vector(given_input: object, inputs: list[object]) -> None:
    assert asked(input=given_input).task == Embeddings(inputs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [[]]}, "input[0]"),
        ({"input": ["a", 1]}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"stream": True}, "stream"),
        ({"model": ""}, "model"),
    ],
)
def test_what_cannot_be_is_refused_by_name(members: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(**members)
    assert refused.value.param == param


def test_unknown_members_are_reported_and_pass_through_to_the_same_protocol() -> None:
    request = asked(input_type="query", user="u")
    assert request.ignored == ["input_type", "user"]
    sent = json.loads(CODEC.rewrite_request(request, "upstream-name"))
    assert sent == {"model": "upstream-name", "input": "hello", "input_type": "query", "user": "u"}


def test_a_chat_is_not_carried() -> None:
    with pytest.raises(InvalidRequest):
        CODEC.encode_request(Request("m", Conversation([]), "openai_chat"), "m", stream=False)


@given(
    st.lists(st.lists(FLOAT32, min_size=1, max_size=20), min_size=1, max_size=4), st.sampled_from(["float", "base64"])
)
def test_vectors_survive_both_encodings_to_the_bit(vectors: list[list[float]], encoding: str) -> None:
    events = [Vector(index, values) for index, values in enumerate(vectors)]
    body = CODEC.encode_response(asked(encoding_format=encoding), [*events, Finished(FinishReason.STOP)], "id", 1)
    assert [event for event in CODEC.read_response(body) if isinstance(event, Vector)] == events
    for item, values in zip(json.loads(body)["data"], vectors, strict=True):
        if encoding == "base64":
            assert base64.b64decode(item["embedding"]) == struct.pack(f"<{len(values)}f", *values)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"data": []}',
        b'{"data": [{"embedding": "AAAA"}]}',  # three bytes are no float32
        b'{"data": [{"embedding": "***"}]}',
        b'{"data": [{"embedding": [null]}]}',
        b'{"embeddings": {"float": [[0.5]]}}',
        b'{"error": {"message": "no"}}',
    ],
)
def test_an_answer_that_is_none_is_not_taken_for_one(body: bytes) -> None:
    with pytest.raises(ValueError):
        CODEC.read_response(body)
    with pytest.raises(UpstreamBroken):
        Translation(CODEC, CODEC, asked(), Observation(), ("id", 1)).whole(body)


def test_an_answer_with_too_few_vectors_is_broken_on_either_way() -> None:
    body = b'{"data": [{"index": 0, "embedding": [0.5]}], "usage": {"prompt_tokens": 1}}'
    request = asked(input=["a", "b"])
    with pytest.raises(UpstreamBroken, match="1 vectors for 2 inputs"):
        CODEC.passthrough(request, Observation()).whole(body)
    with pytest.raises(UpstreamBroken, match="1 vectors for 2 inputs"):
        Translation(CODEC, CODEC, request, Observation(), ("id", 1)).whole(body)


def test_the_relay_forwards_bytes_and_sees_the_usage() -> None:
    body = b'{"data":[{"embedding":[ 0.50 ]}] ,"usage":{"total_tokens":9},"model":"real"}'
    seen = Observation()
    assert CODEC.passthrough(asked(), seen).whole(body) == body
    assert (seen.usage, seen.response_model, seen.finish_reasons) == (Usage(input=9), "real", {0: "stop"})


def test_usage_of_a_translated_answer_is_the_upstreams() -> None:
    events = [Vector(0, [0.5]), UsageReport(Usage(input=3, cached_input=2))]
    assert json.loads(CODEC.encode_response(asked(), events, "id", 1))["usage"] == {
        "prompt_tokens": 5,
        "total_tokens": 5,
    }


def test_a_hosts_error_keeps_its_words() -> None:
    error = CODEC.read_error(404, b'{"message": "model not found"}', provider="host", retry_after=None)
    assert isinstance(error, UpstreamRejected)
    assert "model not found" in error.message
