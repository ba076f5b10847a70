"""Models that make vectors, rank or see, from official clients to weights: real engines with tiny weights of ours."""

from collections.abc import Iterator
from typing import Any

import gguf
import numpy as np
import pytest
from huggingface_hub import InferenceClient
from openai import BadRequestError, OpenAI
from tests import tiny
from together import Together

TEXTS = ["the cat sat on a mat", "paris is the capital of france", "a dog"]
MODELS = """
[models.embedder]
engine = "llama"
weights = "file:{folder}/embedder.gguf"

[models.reranker]
engine = "llama"
weights = "file:{folder}/reranker.gguf"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, serve: Any) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("kinds")
    tiny.encoder(folder / "embedder.gguf", pooling=gguf.PoolingType.MEAN)
    tiny.encoder(folder / "reranker.gguf", pooling=gguf.PoolingType.RANK)
    (folder / "models.toml").write_text(MODELS.format(folder=folder))
    with serve(folder / "data", "--config", str(folder / "models.toml")) as running:
        yield running


@pytest.fixture
def client(server: Any) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.api_key, max_retries=0) as found:
        yield found


def test_each_model_says_what_it_does(server: Any) -> None:
    status, listed = server.call("GET", "/v1/models")
    assert status == 200
    able = {model["id"]: model["capabilities"] for model in listed["data"]}
    assert able == {"embedder": ["embeddings"], "reranker": ["rerank"]}


def test_openais_client_embeds(client: OpenAI) -> None:
    floats = client.embeddings.create(model="embedder", input=TEXTS, encoding_format="float")
    packed = client.embeddings.create(model="embedder", input=TEXTS)  # asks for base64 by itself
    vectors = np.array([one.embedding for one in floats.data])
    assert [one.index for one in floats.data] == [0, 1, 2]
    assert vectors.shape == (3, tiny.WIDTH)
    assert np.abs(vectors - np.array([one.embedding for one in packed.data])).max() < 1e-6
    assert floats.usage.prompt_tokens == floats.usage.total_tokens == 8 + 8 + 4
    (short,) = client.embeddings.create(model="embedder", input=TEXTS[0], dimensions=16).data
    cut = vectors[0][:16] / np.linalg.norm(vectors[0][:16])
    assert np.abs(np.array(short.embedding) - cut).max() < 1e-6
    many = client.embeddings.create(model="embedder", input=TEXTS * 100)
    assert len(many.data) == 300
    assert np.abs(np.array(many.data[-1].embedding) - vectors[2]).max() < 1e-5
    ids = [tiny.CLASSIFY, 4, 5, tiny.SEPARATE]  # the cat
    by_ids, by_text = (client.embeddings.create(model="embedder", input=given).data for given in (ids, "the cat"))
    assert by_ids[0].embedding == pytest.approx(by_text[0].embedding, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "param", "said"),
    [
        ({"input": ["a", "the " * 70]}, "input[1]", "has 72 tokens"),
        ({"input": ["a", ""]}, "input[1]", "empty"),
        ({"input": "a", "dimensions": 65}, "dimensions", "64 dimensions"),
    ],
)
def test_what_cannot_be_embedded_is_told(client: OpenAI, given: Any, param: str, said: str) -> None:
    with pytest.raises(BadRequestError, match=said) as refused:
        client.embeddings.create(model="embedder", **given)
    assert refused.value.param == param


def test_models_do_what_they_are_for_and_nothing_else(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="cannot make embeddings"):
        client.embeddings.create(model="reranker", input="a")
    for model in ("embedder", "reranker"):
        with pytest.raises(BadRequestError, match="does not take chat: it can only"):
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])


def test_togethers_client_ranks(server: Any) -> None:
    with Together(base_url=server.url, api_key=server.api_key, max_retries=0) as together:
        ranked = together.rerank.create(
            model="reranker", query="the cat", documents=TEXTS, top_n=2, return_documents=True
        )
    scores = [result.relevance_score for result in ranked.results]
    assert len(scores) == 2
    assert 1 > scores[0] > scores[1] > 0
    for result in ranked.results:
        assert result.document is not None
        assert result.document.text == TEXTS[result.index]
    assert ranked.usage is not None
    assert ranked.usage.prompt_tokens > sum(len(text.split()) for text in TEXTS)


def test_coheres_shape_is_answered(server: Any) -> None:
    documents = [{"text": text, "title": "x"} for text in TEXTS]
    status, answer = server.call(
        "POST", "/v1/rerank", {"model": "reranker", "query": "the cat", "documents": documents}
    )
    assert status == 200
    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2]
    assert answer["meta"]["billed_units"] == {"search_units": 1}
    assert answer["meta"]["tokens"]["input_tokens"] == answer["usage"]["prompt_tokens"] > 0
    status, refused = server.call(
        "POST", "/v1/rerank", {"model": "reranker", "query": "the cat", "documents": ["a", "the " * 70]}
    )
    assert (status, refused["error"]["param"]) == (400, "documents[1]")


def test_hugging_faces_client_extracts_features(server: Any, client: OpenAI) -> None:
    """It names no model: the one that embeds is asked."""
    hub = InferenceClient(base_url=server.url, api_key=server.api_key, timeout=60)
    found = hub.feature_extraction(TEXTS[0])
    (expected,) = client.embeddings.create(model="embedder", input=TEXTS[0]).data
    assert np.abs(np.array(found).reshape(-1) - np.array(expected.embedding)).max() < 1e-5
    status, vectors = server.call("POST", "/embed", {"inputs": TEXTS})
    assert (status, len(vectors)) == (200, 3)
