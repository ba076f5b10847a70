"""Embeddings, rerank and TGI from client to engine: official clients, `tokenworks serve`, a worker without weights."""

import json
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from openai import BadRequestError, OpenAI


def test_the_openai_client_embeds(echo_server: Any) -> None:
    with OpenAI(base_url=f"{echo_server.url}/v1", api_key=echo_server.api_key, max_retries=0) as client:
        same, near, far = client.embeddings.create(
            model="echo", input=["the blue sky", "the blue sea", "42"], dimensions=256
        ).data
        floats = client.embeddings.create(model="echo", input="the blue sky", dimensions=256, encoding_format="float")
        assert floats.data[0].embedding == pytest.approx(same.embedding, abs=1e-6)
        assert floats.usage.prompt_tokens == 3
        assert _dot(same.embedding, near.embedding) > 0.5 > _dot(same.embedding, far.embedding)
        with pytest.raises(BadRequestError) as refused:
            client.embeddings.create(model="echo", input="a", dimensions=100_000)
        assert refused.value.param == "dimensions"


def _dot(left: list[float], right: list[float]) -> float:
    return sum(map(float.__mul__, left, right))


def test_documents_are_ranked(echo_server: Any) -> None:
    body = {"model": "echo", "query": "capital", "documents": ["a dog", "capital", "the capital"], "top_n": 2}
    status, answer = echo_server.call("POST", "/v1/rerank", body)
    assert status == 200
    assert [result["index"] for result in answer["results"]] == [1, 2]
    assert answer["usage"]["total_tokens"] == 6


def test_hugging_faces_client_generates_with_and_without_a_grammar(echo_server: Any) -> None:
    client = InferenceClient(base_url=echo_server.url, api_key=echo_server.api_key, timeout=60)
    assert client.text_generation("one two three") == "one two three"
    *_, last = client.text_generation("one two three", stream=True, details=True, max_new_tokens=2)
    assert (last.generated_text, last.details.finish_reason) == ("one two", "length")
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    text = client.text_generation("one", grammar={"type": "json", "value": schema}, max_new_tokens=50)
    assert isinstance(json.loads(text)["a"], int)
    status, vectors = echo_server.call("POST", "/embed", {"inputs": ["one", "one"]})
    assert (status, vectors[0]) == (200, vectors[1])


@pytest.mark.parametrize("server", ["echo_server", "smollm2_server"])
def test_tokens_of_a_text(server: str, request: pytest.FixtureRequest) -> None:
    served, text = request.getfixturevalue(server), "one two three"
    status, tokens = served.call("POST", "/tokenize", {"inputs": text})
    assert status == 200
    assert "".join(token["text"] for token in tokens) == text
    assert [text[token["start"] : token["stop"]] for token in tokens] == [token["text"] for token in tokens]
    assert len({token["id"] for token in tokens}) == len(tokens) > 2
    status, refused = served.call("POST", "/tokenize", {"inputs": ""})
    assert (status, refused["error_type"]) == (422, "validation")
