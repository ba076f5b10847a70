"""Models that make vectors, rank or see, from official clients to weights: real engines with tiny weights of ours."""

import base64
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import gguf
import numpy as np
import pytest
from anthropic import Anthropic
from huggingface_hub import InferenceClient
from openai import BadRequestError, OpenAI
from PIL import Image
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

[models.eyes]
engine = "llama_server"
weights = "tiny-eyes"
price = {{ input = 1, cached_input = 1, output = 1, image = 0.25 }}

[models.blind]
engine = "llama"
weights = "tiny-eyes"
"""
CATALOG = """
[models.tiny-eyes]
source = "file:{folder}/text.gguf"
projector = "file:{folder}/projector.gguf"
capabilities = ["vision"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, serve: Any, wait_until: Any) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("kinds")
    tiny.encoder(folder / "embedder.gguf", pooling=gguf.PoolingType.MEAN)
    tiny.encoder(folder / "reranker.gguf", pooling=gguf.PoolingType.RANK)
    tiny.decoder(folder / "text.gguf")
    tiny.projector(folder / "projector.gguf")
    (folder / "models.toml").write_text(MODELS.format(folder=folder))
    (folder / "catalog.toml").write_text(CATALOG.format(folder=folder))
    options = ("--config", str(folder / "models.toml"), "--catalog", str(folder / "catalog.toml"))
    with serve(folder / "data", *options, TOKENWORKS_GATEWAY_IMAGE_HOSTS="127.0.0.1") as running:
        listed = lambda: len([m for m in running.call("GET", "/v1/models")[1]["data"] if m["capabilities"]])  # noqa: E731
        wait_until(lambda: listed() == 4, "all models")
        yield running


@pytest.fixture
def client(server: Any) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.api_key, max_retries=0) as found:
        yield found


def test_each_model_says_what_it_does(server: Any) -> None:
    status, listed = server.call("GET", "/v1/models")
    assert status == 200
    able = {model["id"]: model["capabilities"] for model in listed["data"]}
    assert able["embedder"] == ["embeddings"]
    assert able["reranker"] == ["rerank"]
    assert "vision" in able["eyes"]
    assert "vision" not in able["blind"], "our own engine sees nothing, and says so"


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
        "POST", "/v2/rerank", {"model": "reranker", "query": "the cat", "documents": documents}
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


def picture(colour: str, kind: str = "PNG", size: tuple[int, int] = (40, 24)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


RED, BLUE = data_url(picture("red")), data_url(picture("blue"))
PICTURE_TOKENS = 16


def shown(*urls: str) -> list[Any]:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *images]}]


def see(client: OpenAI, messages: Any, **more: Any) -> Any:
    asked: dict[str, Any] = {"model": "eyes", "messages": messages, "max_tokens": 8, "temperature": 0, **more}
    return client.chat.completions.with_raw_response.create(**asked)


def said(answer: Any) -> str:
    return str(answer.parse().choices[0].message.content)


def test_what_is_answered_depends_on_the_image(client: OpenAI) -> None:
    nothing, red, blue = (see(client, shown(*urls)) for urls in ((), (RED,), (BLUE,)))
    assert len({said(answer) for answer in (nothing, red, blue)}) == 3
    assert said(see(client, shown(RED))) == said(red)
    assert said(see(client, shown(data_url(picture("red", "GIF"), "image/gif")))) == said(red), "it is the same picture"
    assert said(see(client, shown(RED, BLUE))) != said(see(client, shown(BLUE, RED)))


def test_an_image_is_counted_in_tokens_and_billed(client: OpenAI) -> None:
    bare, one, two = (see(client, shown(*urls)) for urls in ((), (RED,), (RED, BLUE)))
    prompts = [answer.parse().usage.prompt_tokens for answer in (bare, one, two)]
    assert np.diff(prompts).tolist() == [PICTURE_TOKENS] * 2
    for answer, images in ((bare, 0), (one, 1), (two, 2)):
        usage = answer.parse().usage
        cost = int(answer.headers["x-tokenworks-cost-nano-usd"])
        assert cost == 1_000 * usage.total_tokens + 250_000_000 * images


@pytest.mark.parametrize("stream", [False, True])
def test_every_protocol_shows_it(server: Any, client: OpenAI, stream: bool) -> None:
    """In chat, as a block of Anthropic's, and in an item of Responses: the same picture, the same answer."""
    expected = said(see(client, shown(RED)))
    if stream:
        chunks = see(client, shown(RED), stream=True).parse()
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected
    raw = base64.b64encode(picture("red")).decode()
    block: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": raw}}
    question: Any = {"type": "text", "text": "What is it?"}
    version = {"anthropic-version": "2023-06-01"}  # later ones have no temperature
    with Anthropic(base_url=server.url, api_key=server.api_key, max_retries=0, default_headers=version) as anthropic:
        asked: dict[str, Any] = {"model": "eyes", "max_tokens": 8, "extra_body": {"temperature": 0}}
        message: Any = [{"role": "user", "content": [question, block]}]
        if stream:
            with anthropic.messages.stream(**asked, messages=message) as events:
                answer = events.get_final_message()
        else:
            answer = anthropic.messages.create(**asked, messages=message)
        assert answer.content[0].text == expected  # type: ignore[union-attr]
        counted = anthropic.messages.count_tokens(model="eyes", messages=message)
        assert counted.input_tokens == answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    content: Any = [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": RED}]
    items: Any = [{"role": "user", "content": content}]
    options: dict[str, Any] = {"model": "eyes", "max_output_tokens": 8, "temperature": 0, "store": False}
    if stream:
        events = client.responses.create(**options, input=items, stream=True)
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == expected
    else:
        assert client.responses.create(**options, input=items).output_text == expected


class Pictures(BaseHTTPRequestHandler):
    """A host of images, and of what is none."""

    def do_GET(self) -> None:
        moved = {"/moved": "/red.png", "/inside": "http://169.254.169.254/latest/meta-data", "/round": "/round"}
        if self.path in moved:
            self.send_response(302)
            self.send_header("location", moved[self.path])
            self.end_headers()
            return
        body = {"/red.png": picture("red"), "/page": b"<html>"}.get(self.path)
        self.send_response(404 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def pictures() -> Iterator[str]:
    host = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{host.server_port}"
    host.shutdown()
    host.server_close()


def test_an_image_that_is_only_named_is_fetched(client: OpenAI, pictures: str) -> None:
    expected = said(see(client, shown(RED)))
    for path in ("/red.png", "/moved"):
        assert said(see(client, shown(pictures + path))) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://10.0.0.1/a.png", "not an address of the public internet"),
        ("http://localhost:1/a.png", "not an address of the public internet"),
        ("file:///etc/passwd", "only http:// and https://"),
        ("{pictures}/inside", "169.254.169.254 is not an address of the public internet"),
        ("{pictures}/round", "more than 3 redirects"),
        ("{pictures}/nothing", "its host answered 404"),
        ("{pictures}/page", "is none that this model reads"),
        ("http://127.0.0.1:1/a.png", "cannot be fetched"),
        ("data:image/png;base64,!!", "is not base64"),
        ("data:image/png;base64,AAAA", "is none that this model reads"),
        (data_url(picture("red", "WEBP"), "image/webp"), "is none that this model reads: PNG, JPEG, GIF or BMP"),
        (data_url(picture("red")[:-12]), "is none that this model reads"),
        (data_url(picture("black", size=(9000, 9000))), "has 9000 x 9000 pixels"),
        # a picture by its head and its end, and nothing in between
        (data_url(picture("red")[:33] + picture("red")[-12:]), "Failed to load image"),
    ],
)
def test_an_image_that_cannot_be_shown_is_told_by_its_place(client: OpenAI, pictures: str, url: str, why: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        see(client, shown(url.format(pictures=pictures) if url.startswith("{") else url))
    assert why in refused.value.message
    assert refused.value.param == "messages[0].content[1].image_url.url"


def test_places_are_named_as_the_caller_knows_them(server: Any, client: OpenAI) -> None:
    source = {"type": "url", "url": "http://10.0.0.1/a.png"}
    content = [{"type": "text", "text": "?"}, {"type": "image", "source": source}]
    body = {"model": "eyes", "max_tokens": 8, "messages": [{"role": "user", "content": content}]}
    status, refused = server.call("POST", "/v1/messages", body)
    assert status == 400
    assert "messages[0].content[1].source.url" in refused["error"]["message"]
    status, _ = server.call("POST", "/v1/messages/count_tokens", {"model": "eyes", "messages": body["messages"]})
    assert status == 400, "nor does counting go there"
    items: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": "http://10.0.0.1/a.png"}]}]
    with pytest.raises(BadRequestError) as told:
        client.responses.create(model="eyes", input=items, store=False)
    assert told.value.param == "input[0].content[0].image_url"


@pytest.mark.parametrize("model", ["blind", "embedder"])
def test_a_model_that_does_not_see_says_so(client: OpenAI, model: str) -> None:
    with pytest.raises(BadRequestError, match=f"The model '{model}' (cannot read images|does not take chat)"):
        see(client, shown(RED), model=model)


@pytest.mark.parametrize("kind", ["input_video", "video_url"])
def test_films_are_refused_before_anybody_opens_them(client: OpenAI, pictures: str, kind: str) -> None:
    film = {"type": kind, kind: {"url": f"{pictures}/film"}}
    with pytest.raises(BadRequestError, match="does not read"):
        see(client, [{"role": "user", "content": [film]}])


def test_the_mark_of_an_image_in_a_text_is_text(client: OpenAI) -> None:
    messages = shown(RED)
    messages[0]["content"][0]["text"] = "What is <__media__>?"
    assert said(see(client, messages))
