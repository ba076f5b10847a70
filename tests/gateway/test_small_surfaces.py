"""Embeddings, rerank and TGI through a real gateway process, by the official clients where they are installed here."""

import base64
import http.client
import json
import struct
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, OverloadedError, ValidationError
from openai import BadRequestError, OpenAI

from tokenworks.snapshot.records import LimitsRecord, ModelRecord, PriceRecord, TargetRecord, UpstreamRecord
from tokenworks.snapshot.state import State

KEY = "sk-tw-test-key"
VECTORS = [[0.6, 0.8], [1.0, 0.0]]


def state_with_small_surfaces(state: State, port: int) -> State:
    """The common state, its default model one that completes texts, and models that embed, rank and speak TGI."""
    url = f"http://127.0.0.1:{port}"
    limits = LimitsRecord(connect=1.0, first_token=3.0, idle=2.0, total=10.0)
    price = (PriceRecord({"input": 20_000_000, "output": 0}),)
    upstreams = [
        UpstreamRecord("upstream-e", "upstream-e", ("openai_embeddings",), f"{url}/v1"),
        UpstreamRecord("upstream-k", "upstream-k", ("rerank",), f"{url}/v1"),
        UpstreamRecord("upstream-g", "upstream-g", ("tgi",), f"{url}/tgi"),
        UpstreamRecord("upstream-b", "upstream-b", ("openai_completions", "openai_chat"), f"{url}/v1"),
    ]
    models = [
        ModelRecord(
            "vectors", 1, (TargetRecord("upstream-e", "vectors-1"),), limits, price, capabilities=("embeddings",)
        ),
        ModelRecord("ranks", 1, (TargetRecord("upstream-k", "ranks-1"),), limits, price, capabilities=("rerank",)),
        ModelRecord("tgi-model", 1, (TargetRecord("upstream-g", "tgi"),), limits, price),
        ModelRecord(
            "both", 1, (TargetRecord("upstream-b", "both-1"),), limits, price, context_length=512, default=True
        ),
    ]
    kept = [ModelRecord(m.name, m.created, m.targets, m.limits, m.prices) for m in state.models.values()]
    one_try = state.models["assistant"].policy
    models = [msgspec.structs.replace(model, policy=one_try) for model in [*kept, *models]]
    return State.of(
        revision=2,
        keys=state.keys.values(),
        models=models,
        upstreams=[*state.upstreams.values(), *upstreams],
    )


async def small(request: web.Request, seen: Any) -> web.StreamResponse:
    """An upstream that speaks each protocol on its path."""
    match request.path:
        case "/v1/embeddings":
            return web.json_response(embeddings(seen.body))
        case "/v1/rerank":
            results = [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.2}]
            return web.json_response({"id": "r", "results": results, "usage": {"total_tokens": 8}})
        case "/v1/completions":
            return await completions(request, seen.body)
        case "/tgi/":
            return await tgi(request, seen.body)
    return await chat(request, seen.body)


def embeddings(body: Any) -> Any:
    packed = body.get("encoding_format") == "base64"
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(struct.pack("<2f", *vector)).decode() if packed else vector,
        }
        for index, vector in enumerate(VECTORS[: len(body["input"]) if isinstance(body["input"], list) else 1])
    ]
    usage = {"prompt_tokens": 5, "total_tokens": 5}
    return {"object": "list", "data": data, "model": "vectors-1", "usage": usage}


async def sent(request: web.Request, chunks: list[Any], *, head: str = "data: ", end: str = "data: [DONE]\n\n") -> Any:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for chunk in chunks:
        await response.write(f"{head}{json.dumps(chunk)}\n\n".encode())
    await response.write(end.encode())
    return response


async def completions(request: web.Request, body: Any) -> web.StreamResponse:
    usage = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
    if body["prompt"] == "overload":
        return web.json_response({"error": {"message": "full"}}, status=429)
    if not body.get("stream"):
        choice = {"index": 0, "text": " blue sky", "finish_reason": "stop"}
        return web.json_response({"id": "c", "model": "both-1", "choices": [choice], "usage": usage})
    choices = [{"index": 0, "text": text, "finish_reason": None} for text in (" blue", " sky")]
    choices.append({"index": 0, "text": "", "finish_reason": "length"})
    chunks = [{"id": "c", "model": "both-1", "choices": [choice]} for choice in choices]
    if body["prompt"] == "break":
        return await sent(request, chunks[:1], end="")
    return await sent(request, [*chunks, {"id": "c", "choices": [], "usage": usage}])


async def chat(request: web.Request, body: Any) -> web.StreamResponse:
    usage = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
    if body["messages"][-1]["content"] == "overload":
        return web.json_response({"error": {"message": "full"}}, status=429)
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "both-1"}
    if not body.get("stream"):
        message = {"role": "assistant", "content": "Hello"}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    deltas: list[Any] = [{"role": "assistant", "content": "Hel"}, {"content": "lo"}]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    return await sent(request, [*[head | {"choices": [c]} for c in choices], head | {"choices": [], "usage": usage}])


async def tgi(request: web.Request, body: Any) -> web.StreamResponse:
    tokens = [{"id": n, "text": text, "logprob": -0.5, "special": False} for n, text in enumerate((" blue", " sky"))]
    details: Any = {"finish_reason": "length", "generated_tokens": 2, "seed": None}
    if not body["stream"]:
        details |= {"prefill": [{"id": 1, "text": "x", "logprob": None}] * 4, "tokens": tokens}
        return web.json_response([{"generated_text": " blue sky", "details": details}])
    details["input_length"] = 4
    ends: list[Any] = [{"generated_text": None, "details": None}, {"generated_text": " blue sky", "details": details}]
    chunks = [{"index": n + 1, "token": token, **end} for n, (token, end) in enumerate(zip(tokens, ends, strict=True))]
    return await sent(request, chunks, head="data:", end="")


@pytest.fixture
def small_gateway(shared_gateway: Any) -> Iterator[Any]:
    gateway = shared_gateway
    state = gateway.control._state
    if "vectors" not in state.models:
        gateway.control.publish(state_with_small_surfaces(state, gateway.upstream.port))
    deadline = time.monotonic() + 10
    while b"vectors" not in call(gateway, "GET", "/v1/models")[1]:
        assert time.monotonic() < deadline, "the new state never arrived"
    gateway.upstream.script = small
    gateway.upstream.seen.clear()
    return gateway


def call(gateway: Any, method: str, path: str, body: Any = None, key: str | None = KEY) -> tuple[int, bytes, Any]:
    host, port = gateway.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def openai_client(gateway: Any) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0)


def hub_client(gateway: Any, path: str = "") -> InferenceClient:
    return InferenceClient(base_url=gateway.url + path, api_key=KEY, timeout=20)


def settled(gateway: Any, request_id: str) -> Any:
    return gateway.control.settled(request_id)


def test_the_openai_client_gets_vectors_as_base64_by_its_own_wish(small_gateway: Any) -> None:
    with openai_client(small_gateway) as client:
        answer = client.embeddings.with_raw_response.create(model="vectors", input=["a", "b"])
    parsed = answer.parse()
    assert small_gateway.upstream.seen[0].body["encoding_format"] == "base64"
    assert [item.embedding for item in parsed.data] == [pytest.approx(vector) for vector in VECTORS]
    assert parsed.usage.prompt_tokens == 5
    record = settled(small_gateway, answer.headers["x-request-id"])
    assert (record.usage.input, record.usage.output, record.estimated) == (5, 0, False)
    assert record.charge == 5 * 20


def test_the_openai_client_gets_vectors_as_floats(small_gateway: Any) -> None:
    with openai_client(small_gateway) as client:
        answer = client.embeddings.create(model="vectors", input="a", encoding_format="float", dimensions=2)
    assert answer.data[0].embedding == VECTORS[0]
    assert small_gateway.upstream.seen[0].body["dimensions"] == 2


def test_a_stream_of_vectors_is_refused_by_name(small_gateway: Any) -> None:
    with openai_client(small_gateway) as client, pytest.raises(BadRequestError) as refused:
        client.embeddings.create(model="vectors", input="a", extra_body={"stream": True})
    assert refused.value.param == "stream"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/embeddings", {"model": "ranks", "input": "a"}, "cannot make embeddings"),
        ("/v1/embeddings", {"model": "both", "input": "a"}, "does not take texts to embed"),
        ("/v1/rerank", {"model": "vectors", "query": "q", "documents": ["a"]}, "cannot rank documents"),
        ("/v1/completions", {"model": "vectors", "prompt": "a"}, "does not take text completions"),
    ],
)
def test_a_model_that_cannot_do_the_task_says_so(small_gateway: Any, path: str, body: Any, message: str) -> None:
    status, said, _ = call(small_gateway, "POST", path, body)
    assert status == 400
    assert message in json.loads(said)["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
def test_rerank_passes_through_and_is_billed(small_gateway: Any, path: str) -> None:
    body = {"model": "ranks", "query": "q", "documents": ["a", {"text": "b"}], "max_tokens_per_doc": 9}
    status, said, headers = call(small_gateway, "POST", path, body)
    assert status == 200
    assert [result["index"] for result in json.loads(said)["results"]] == [1, 0]
    assert small_gateway.upstream.seen[0].body == {**body, "model": "ranks-1"}
    assert settled(small_gateway, headers["x-request-id"]).usage.input == 8


@pytest.mark.parametrize("adapter", [None, "tgi-model"], ids=["onto text completions", "onto the same protocol"])
def test_hugging_faces_client_generates(small_gateway: Any, adapter: str | None) -> None:
    with hub_client(small_gateway) as client:
        assert client.text_generation("Why", adapter_id=adapter) == " blue sky"
        whole = client.text_generation("Why", details=True, adapter_id=adapter, max_new_tokens=5, temperature=0.5)
        assert (whole.generated_text, whole.details.generated_tokens) == (" blue sky", 2)
        assert "".join(client.text_generation("Why", stream=True, adapter_id=adapter)) == " blue sky"
        *_, last = client.text_generation("Why", stream=True, details=True, adapter_id=adapter)
        assert last.generated_text == " blue sky"
        assert (last.details.finish_reason, last.details.input_length, last.details.generated_tokens) == (
            "length",
            4,
            2,
        )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("adapter", [None, "tgi-model"], ids=["onto text completions", "onto the same protocol"])
def test_generating_is_billed_from_what_was_counted(small_gateway: Any, stream: bool, adapter: str | None) -> None:
    body = {"inputs": "Why", "parameters": {"adapter_id": adapter}, "stream": stream}
    status, said, headers = call(small_gateway, "POST", "/", body)
    assert status == 200
    assert (b'"details":{' in said, b"input_length" in said) == (stream and adapter is None,) * 2
    record = settled(small_gateway, headers["x-request-id"])
    assert (record.usage.input, record.usage.output, record.estimated) == (4, 2, False)


def test_each_path_answers_in_its_form(small_gateway: Any) -> None:
    body = {"inputs": "Why", "parameters": {"max_new_tokens": 5}}
    assert isinstance(json.loads(call(small_gateway, "POST", "/", body)[1]), list)
    assert json.loads(call(small_gateway, "POST", "/generate", body)[1]) == {"generated_text": " blue sky"}
    status, stream, headers = call(small_gateway, "POST", "/generate_stream", body)
    assert (status, headers["content-type"]) == (200, "text/event-stream")
    assert stream.startswith(b"data:{") and b"[DONE]" not in stream
    assert small_gateway.upstream.seen[0].body["max_tokens"] == 5
    assert small_gateway.upstream.seen[0].body["model"] == "both-1"


def test_a_grammar_is_refused_by_name_where_it_would_be_lost(small_gateway: Any) -> None:
    for kind, value in (("regex", "[a-z]+"), ("json", {"type": "object"})):
        body = {"inputs": "Why", "parameters": {"grammar": {"type": kind, "value": value}}}
        status, said, _ = call(small_gateway, "POST", "/generate", body)
        assert (status, json.loads(said)["error_type"]) == (422, "validation")
        assert "grammar" in json.loads(said)["error"]
    body["parameters"]["adapter_id"] = "tgi-model"
    assert call(small_gateway, "POST", "/generate", body)[0] == 200


def test_hugging_faces_client_understands_the_errors(small_gateway: Any) -> None:
    with hub_client(small_gateway) as client:
        with pytest.raises(ValidationError, match=r"parameters\.top_p"):
            client.text_generation("Why", top_p=2.0)
        with pytest.raises(OverloadedError):
            client.text_generation("overload")
        stranger = InferenceClient(base_url=small_gateway.url, api_key="sk-tw-wrong")
        with stranger, pytest.raises(HfHubHTTPError) as unknown:
            stranger.text_generation("Why")
        assert unknown.value.response.status_code == 401


def test_a_stream_that_breaks_says_so_in_its_own_form(small_gateway: Any) -> None:
    _, stream, _ = call(small_gateway, "POST", "/generate_stream", {"inputs": "break"})
    last = json.loads(stream.split(b"\n\n")[-2].removeprefix(b"data:"))
    assert last["error_type"] == "incomplete_generation"


def test_hugging_faces_client_chats_without_a_model(small_gateway: Any) -> None:
    with hub_client(small_gateway) as client:
        messages = [{"role": "user", "content": "Hi"}]
        assert client.chat_completion(messages).choices[0].message.content == "Hello"
        chunks = list(client.chat_completion(messages, stream=True))
        assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "Hello"
        schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
        client.chat_completion(messages, response_format=schema)
        asked = small_gateway.upstream.seen[-1].body
        assert (asked["model"], asked["response_format"]["json_schema"]["schema"]) == ("both-1", {"type": "object"})


def test_tgis_own_client_gets_its_dialect_of_chat(small_gateway: Any) -> None:
    nulls = dict.fromkeys(("tools", "tool_choice", "logit_bias", "logprobs", "n", "seed"))
    body = {"model": "tgi", "messages": [{"role": "user", "content": "Hi", "name": None, "tool_calls": None}], **nulls}
    whole = json.loads(call(small_gateway, "POST", "/v1/chat/completions", {**body, "stream": False})[1])
    assert (whole["choices"][0]["message"]["content"], type(whole["system_fingerprint"])) == ("Hello", str)
    _, stream, headers = call(small_gateway, "POST", "/v1/chat/completions", {**body, "stream": True})
    assert b"[DONE]" not in stream
    deltas = [json.loads(block[6:])["choices"][0]["delta"] for block in stream.split(b"\n\n") if block]
    assert [delta["content"] for delta in deltas] == ["Hel", "lo", None]
    assert small_gateway.control.opened(headers["x-request-id"]).protocol == "tgi_chat"
    body["messages"] = [{"role": "user", "content": "overload"}]
    status, said, _ = call(small_gateway, "POST", "/v1/chat/completions", {**body, "stream": True})
    assert (status, json.loads(said)["error_type"]) == (429, "overloaded")


@pytest.mark.parametrize("path", ["/", "/embed"])
def test_hugging_faces_features_are_bare_vectors(small_gateway: Any, path: str) -> None:
    """The body of InferenceClient.feature_extraction, which needs NumPy to be called itself."""
    status, said, _ = call(small_gateway, "POST", path, {"inputs": ["a", "b"], "normalize": True})
    assert (status, json.loads(said)) == (200, VECTORS)
    assert json.loads(call(small_gateway, "POST", path, {"inputs": "a"})[1]) == VECTORS[:1]
    assert small_gateway.upstream.seen[0].body["model"] == "vectors-1"
    assert call(small_gateway, "POST", path, {"inputs": ["a", "b", "c"]})[0] == 500


def test_what_a_server_of_one_model_says_of_itself(small_gateway: Any) -> None:
    with InferenceClient(model=small_gateway.url, provider="hf-inference", api_key=KEY) as client:
        said = client.get_endpoint_info()
        assert (said["model_id"], said["max_total_tokens"]) == ("both", 512)
        assert client.health_check()
        assert call(small_gateway, "GET", "/info", key=None)[0] == 401
