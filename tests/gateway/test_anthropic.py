"""The official `anthropic` client, unmodified, through a real gateway: onto an upstream that speaks chat completions
(model `assistant`), and onto one that speaks Messages itself (model `claude`)."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from aiohttp import web
from anthropic import Anthropic, AsyncAnthropic
from pydantic import BaseModel

KEY = "sk-tw-test-key"
ASK: list[Any] = [{"role": "user", "content": "Hi"}]
TOOLS: list[Any] = [
    {"name": "weather", "description": "of a city", "input_schema": {"type": "object"}},
    {"name": "clock", "input_schema": {"type": "object"}},
]
CHAT_USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 9,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
WORDS = ({"role": "assistant", "content": ""}, {"content": "Hello"}, {"content": " there"})


class City(BaseModel):
    name: str
    people: int


@pytest.fixture
def client(gateway: Any) -> Iterator[Anthropic]:
    with Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0, timeout=20) as client:
        yield client


def streaming(pieces: list[bytes], *, cut: bool = False, wait: float = 0.0) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await asyncio.sleep(wait)
        for piece in pieces:
            await response.write(piece)
        if cut and request.transport is not None:
            request.transport.abort()
        return response

    return script


def whole(body: dict[str, Any], status: int = 200, **headers: str) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        return web.json_response(body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return script


def chat(*deltas: dict[str, Any], finish: str = "stop") -> list[bytes]:
    head = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": "model-1"}
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    bodies = [{"choices": [choice]} for choice in [*choices, {"index": 0, "delta": {}, "finish_reason": finish}]]
    bodies.append({"choices": [], "usage": CHAT_USAGE})
    return [b"data: " + json.dumps({**head, **body}).encode() + b"\n\n" for body in bodies] + [b"data: [DONE]\n\n"]


def completion(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "model-1",
        "choices": [choice],
        "usage": CHAT_USAGE,
    }


def call(index: int, arguments: str, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    named = {"id": id, "type": "function"} if id else {}
    return {"tool_calls": [{"index": index, **named, "function": {"name": name, "arguments": arguments}}]}


# Onto chat completions.


def test_a_whole_answer(client: Anthropic, gateway: Any) -> None:
    gateway.upstream.script = whole(completion({"content": "Hello there"}))
    message = client.messages.create(model="assistant", max_tokens=50, messages=ASK, system="Be terse.")
    assert message.id.startswith("msg_")
    assert (message.type, message.role, message.model) == ("message", "assistant", "model-1")
    assert message.content[0].to_dict() == {"type": "text", "text": "Hello there"}
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (8, 4, 9)
    assert message._request_id
    sent = gateway.upstream.seen[-1]
    assert sent.body["messages"] == [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hi"}]
    assert sent.body["max_tokens"] == 50
    settled = gateway.control.settled(message._request_id)
    assert settled.usage.output == 9
    assert usage.model_extra is not None
    assert usage.model_extra["cost_nano_usd"] == settled.charge == 8 * 150 + 4 * 75 + 9 * 600


def test_the_stream_helper_collects_what_the_whole_answer_says(client: Anthropic, gateway: Any) -> None:
    gateway.upstream.script = streaming(chat(*WORDS))
    with client.messages.stream(model="assistant", max_tokens=50, messages=ASK) as stream:
        assert list(stream.text_stream) == ["Hello", " there"]
        streamed = stream.get_final_message()
    gateway.upstream.script = whole(completion({"content": "Hello there"}))
    answered = client.messages.create(model="assistant", max_tokens=50, messages=ASK)
    alike = {"content", "stop_reason", "stop_sequence", "usage", "role", "model"}
    told = answered.model_dump(include=alike)
    for cost in ("cost", "cost_nano_usd"):  # the helper keeps the counts that it knows; events have all
        assert told["usage"].pop(cost)
    assert streamed.model_dump(include=alike, exclude={"content": {"__all__": {"parsed_output"}}}) == told


def test_raw_events_come_in_the_order_that_clients_need(client: Anthropic, gateway: Any) -> None:
    gateway.upstream.script = streaming(chat(*WORDS))
    events = list(client.messages.create(model="assistant", max_tokens=50, messages=ASK, stream=True))
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_the_async_client(gateway: Any) -> None:
    gateway.upstream.script = streaming(chat(*WORDS))

    async def go() -> str:
        async with (
            AsyncAnthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as client,
            client.messages.stream(model="assistant", max_tokens=50, messages=ASK) as stream,
        ):
            return await stream.get_final_text()

    assert asyncio.run(go()) == "Hello there"


FIRST, SECOND = '{"city": "Par\\u00eds", "days": 2, "near": ["a", {"b": null}]}', '{"zone":"CET"}'
CALLS = {
    "one after the other": [
        call(0, "", "call_1", "weather"),
        call(0, FIRST[:20]),
        call(0, FIRST[20:]),
        call(1, SECOND[:5], "call_2", "clock"),
        call(1, SECOND[5:]),
    ],
    "at once": [
        call(0, "", "call_1", "weather"),
        call(1, "", "call_2", "clock"),
        call(1, SECOND[:5]),
        call(0, FIRST[:20]),
        call(1, SECOND[5:]),
        call(0, FIRST[20:]),
    ],
    "in one piece": [call(0, FIRST, "call_1", "weather"), call(1, SECOND, "call_2", "clock")],
}


@pytest.mark.parametrize("deltas", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
def test_parallel_calls_keep_every_argument_and_end_with_tool_use(
    client: Anthropic, gateway: Any, deltas: list[dict[str, Any]], finish: str
) -> None:
    gateway.upstream.script = streaming(chat({"content": "Both."}, *deltas, finish=finish))
    with client.messages.stream(model="assistant", max_tokens=50, messages=ASK, tools=TOOLS) as stream:
        message = stream.get_final_message()
    assert message.stop_reason == "tool_use"
    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
    calls = [(b.id, b.name, b.input) for b in message.content if b.type == "tool_use"]
    assert calls == [("call_1", "weather", json.loads(FIRST)), ("call_2", "clock", json.loads(SECOND))]
    asked = gateway.upstream.seen[-1].body["tools"]
    assert asked[0] == {
        "type": "function",
        "function": {"name": "weather", "description": "of a city", "parameters": {"type": "object"}},
    }


def test_arguments_that_are_no_object_crash_no_client(client: Anthropic, gateway: Any) -> None:
    gateway.upstream.script = streaming(chat(call(0, "not ", "c", "clock"), call(0, "JSON"), finish="tool_calls"))
    with client.messages.stream(model="assistant", max_tokens=50, messages=ASK, tools=TOOLS) as stream:
        streamed = stream.get_final_message().content[0]
    calls = call(0, "not JSON", "c", "clock")
    gateway.upstream.script = whole(completion({"content": None, **calls}, "tool_calls"))
    answered = client.messages.create(model="assistant", max_tokens=50, messages=ASK, tools=TOOLS).content[0]
    assert streamed.type == answered.type == "tool_use"
    assert streamed.input == answered.input == {"INVALID_JSON": "not JSON"}


def test_an_agents_second_turn(client: Anthropic, gateway: Any) -> None:
    """Thoughts, calls, results, a long system prompt in parts with cache marks: as coding agents send them."""
    gateway.upstream.script = whole(completion({"content": "Done."}))
    raw = client.messages.with_raw_response.create(
        model="assistant",
        max_tokens=4000,
        thinking={"type": "enabled", "budget_tokens": 2000},
        system=[
            {"type": "text", "text": "Long."},
            {"type": "text", "text": "P", "cache_control": {"type": "ephemeral"}},
        ],
        tools=TOOLS,
        tool_choice={"type": "auto", "disable_parallel_tool_use": False},
        metadata={"user_id": "u"},
        messages=[
            *ASK,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm", "signature": ""},
                    {"type": "text", "text": "Both."},
                    {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Rome"}},
                    {"type": "tool_use", "id": "call_2", "name": "clock", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "20"},
                    {"type": "tool_result", "tool_use_id": "call_2", "content": "no", "is_error": True},
                ],
            },
        ],
    )
    assert raw.parse().content[0].to_dict() == {"type": "text", "text": "Done."}
    roles = [message["role"] for message in gateway.upstream.seen[-1].body["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool"]
    assert "cache_control" in raw.headers["x-tokenworks-ignored"].split(",")


def test_reasoning_becomes_a_thinking_block_with_the_field_that_clients_need(client: Anthropic, gateway: Any) -> None:
    gateway.upstream.script = streaming(
        chat({"reasoning_content": "Let me"}, {"reasoning_content": " see"}, {"content": "4"})
    )
    with client.messages.stream(
        model="assistant", max_tokens=5000, messages=ASK, thinking={"type": "enabled", "budget_tokens": 4000}
    ) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_message()
    assert "thinking" in kinds
    assert [block.to_dict() for block in message.content] == [
        {"type": "thinking", "thinking": "Let me see", "signature": ""},
        {"type": "text", "text": "4"},
    ]
    assert message.usage.output_tokens_details is not None
    assert message.usage.output_tokens_details.thinking_tokens == 5
    assert gateway.upstream.seen[-1].body["reasoning_effort"] == "medium"


def test_structured_output(client: Anthropic, gateway: Any) -> None:
    gateway.upstream.script = whole(completion({"content": '{"name": "Rome", "people": 3}'}))
    message = client.messages.parse(model="assistant", max_tokens=50, messages=ASK, output_format=City)
    assert message.parsed_output == City(name="Rome", people=3)
    sent = gateway.upstream.seen[-1].body["response_format"]
    assert sent["json_schema"]["schema"]["properties"].keys() == {"name", "people"}


def test_a_waiting_client_is_kept_alive_before_and_while_the_message_streams(client: Anthropic, gateway: Any) -> None:
    gateway.upstream.script = streaming(chat(*WORDS), wait=1.2)
    with client.messages.stream(model="assistant", max_tokens=50, messages=ASK) as stream:
        assert stream.get_final_text() == "Hello there"


# Errors.


def test_errors_have_the_clients_own_classes_and_the_requests_id(client: Anthropic, gateway: Any) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="nope", max_tokens=5, messages=ASK)
    body: Any = missing.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
    assert body["request_id"] == missing.value.request_id == missing.value.response.headers["request-id"]
    with pytest.raises(anthropic.AuthenticationError), Anthropic(base_url=gateway.url, api_key="sk-tw-no") as other:
        other.messages.create(model="assistant", max_tokens=5, messages=ASK)
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(model="assistant", max_tokens=0, messages=ASK)
    with pytest.raises(anthropic.BadRequestError, match="web_search"):
        client.messages.create(
            model="assistant", max_tokens=5, messages=ASK, tools=[{"type": "web_search_20250305", "name": "web_search"}]
        )
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        client.messages.create(model="assistant", max_tokens=5, messages=ASK, extra_body={"temperature": 1.0})


def test_an_overloaded_upstream_is_this_protocols_overload(client: Anthropic, gateway: Any) -> None:
    gateway.upstream.script = whole({"error": {"message": "busy", "type": "rate_limit"}}, 429, retry_after="3")
    with pytest.raises(anthropic.InternalServerError) as overloaded:
        client.messages.create(model="assistant", max_tokens=5, messages=ASK)
    assert overloaded.value.status_code == 529
    assert overloaded.value.response.headers["retry-after"] == "3"
    body: Any = overloaded.value.body
    assert body["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize("model", ["assistant", "claude"])
def test_a_stream_that_breaks_ends_with_an_error_and_never_looks_complete(
    client: Anthropic, gateway: Any, model: str
) -> None:
    pieces = chat(*WORDS)[:3] if model == "assistant" else own("text")[:4]
    gateway.upstream.script = streaming(pieces, cut=True)
    with (
        pytest.raises(anthropic.APIStatusError) as broken,
        client.messages.stream(model=model, max_tokens=50, messages=ASK) as stream,
    ):
        stream.get_final_message()
    body: Any = broken.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "api_error")
    assert body["request_id"] == broken.value.response.headers["request-id"]


# Onto Messages.


def own(kind: str) -> list[bytes]:
    """A stream of an upstream's own, each event a piece."""

    def event(type: str, **members: Any) -> bytes:
        return f"event: {type}\ndata: {json.dumps({'type': type, **members})}\n\n".encode()

    usage = {"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20, "output_tokens": 1}
    message = {"id": "msg_up", "type": "message", "role": "assistant", "model": "claude-up", "content": []}
    signed: list[dict[str, Any]] = [
        {"type": "thinking_delta", "thinking": "Hm"},
        {"type": "signature_delta", "signature": "EqQB=="},
    ]
    text = [{"type": "text_delta", "text": "Hello"}, {"type": "text_delta", "text": " there"}]
    empty = (
        {"type": "thinking", "thinking": "", "signature": ""} if kind == "thinking" else {"type": "text", "text": ""}
    )
    deltas = signed if kind == "thinking" else text
    return [
        event("message_start", message={**message, "stop_reason": None, "stop_sequence": None, "usage": usage}),
        event("content_block_start", index=0, content_block=empty),
        b'event: ping\ndata: {"type": "ping"}\n\n',
        *[event("content_block_delta", index=0, delta=delta) for delta in deltas],
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 7}),
        event("message_stop"),
    ]


def test_the_same_protocol_passes_through_with_our_key_and_the_upstreams_model(client: Anthropic, gateway: Any) -> None:
    gateway.upstream.script = streaming(own("thinking"))
    document: Any = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    with client.messages.stream(
        model="claude",
        max_tokens=50,
        messages=[{"role": "user", "content": [document]}],
        extra_headers={"anthropic-beta": "some-preview"},
        extra_body={"something_new": {"x": 1}},
    ) as stream:
        ends = [event.usage for event in stream if event.type == "message_delta"]
        message = stream.get_final_message()
    assert message.content[0].to_dict() == {"type": "thinking", "thinking": "Hm", "signature": "EqQB=="}
    seen = gateway.upstream.seen[-1]
    assert seen.path == "/v1/messages"
    assert seen.body["model"] == "claude-up"
    assert seen.body["something_new"] == {"x": 1}
    assert seen.body["messages"] == [{"role": "user", "content": [document]}]
    headers = {name.lower(): value for name, value in seen.headers.items()}
    assert headers["x-api-key"] == "upstream-secret"
    assert headers["anthropic-version"] == "2023-06-01"
    assert headers["anthropic-beta"] == "some-preview"
    assert "authorization" not in headers
    assert stream.request_id is not None
    settled = gateway.control.settled(stream.request_id)
    usage = settled.usage
    assert (usage.input, usage.cached_input, usage.cache_write, usage.output) == (5, 100, 20, 7)
    assert [end.model_extra and end.model_extra["cost_nano_usd"] for end in ends] == [settled.charge]
    assert settled.charge == 25 * 150 + 100 * 75 + 7 * 600


def test_a_chat_client_reaches_an_upstream_of_messages(gateway: Any) -> None:
    gateway.upstream.script = streaming(own("text"))
    body = {"model": "claude", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    text = "".join(
        choice["delta"].get("content") or ""
        for line in post(gateway, "/v1/chat/completions", body)[1].decode().splitlines()
        if line.startswith("data: {")
        for choice in json.loads(line[6:])["choices"]
    )
    assert text == "Hello there"
    assert gateway.upstream.seen[-1].body["max_tokens"] > 0
    status, answer = post(gateway, "/v1/chat/completions", {**body, "n": 2})
    assert (status, json.loads(answer)["error"]["param"]) == (400, "n")


def post(gateway: Any, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    sent = {"authorization": f"Bearer {KEY}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(gateway.url + path, data, sent), timeout=20) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_earlier_clients_send_another_header_and_an_earlier_version(gateway: Any) -> None:
    gateway.upstream.script = whole(completion({"content": "Hello"}))
    ask = {"model": "assistant", "max_tokens": 5, "messages": ASK, "temperature": 1.0}
    request = urllib.request.Request(
        f"{gateway.url}/v1/messages",
        json.dumps(ask).encode(),
        {"x-api-key": KEY, "anthropic-version": "2023-06-01", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        assert json.loads(response.read())["content"] == [{"type": "text", "text": "Hello"}]
    assert gateway.upstream.seen[-1].body["temperature"] == 1.0
    status, body = post(gateway, "/inference/v1/messages", ask)
    assert (status, json.loads(body)["type"]) == (200, "message")
    status, body = post(gateway, "/v1/messages", ask, anthropic_version="1999-01-01")
    assert (status, json.loads(body)["error"]["details"]["param"]) == (400, "anthropic-version")


# Counting, models.


def test_tokens_are_counted_by_who_knows(client: Anthropic, gateway: Any) -> None:
    gateway.upstream.script = whole({"input_tokens": 42})
    for model, name in (("claude", "claude-up"), ("ours", "ours")):
        counted = client.messages.count_tokens(model=model, messages=ASK, system="Be terse.", tools=TOOLS)
        assert counted.input_tokens == 42
        seen = gateway.upstream.seen[-1]
        assert (seen.path, seen.body["model"]) == ("/v1/messages/count_tokens", name)
    asked = len(gateway.upstream.seen)
    with pytest.raises(anthropic.BadRequestError, match="cannot be counted"):
        client.messages.count_tokens(model="assistant", messages=ASK)
    assert len(gateway.upstream.seen) == asked
    gateway.upstream.script = whole({"error": "no such path"}, 404)
    with pytest.raises(anthropic.BadRequestError, match="cannot be counted"):
        client.messages.count_tokens(model="ours", messages=ASK)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.count_tokens(model="nope", messages=ASK)
    with pytest.raises(anthropic.BadRequestError, match="messages"):
        client.messages.count_tokens(model="claude", messages=[])


def test_models_in_this_clients_shape(client: Anthropic, gateway: Any) -> None:
    names = [model.id for model in client.models.list(limit=2)]
    assert "claude" in names
    assert names == sorted(names)
    assert len(client.models.list(limit=2).data) == 2
    ours = client.models.retrieve("ours")
    assert (ours.type, ours.lifecycle, ours.max_input_tokens) == ("model", "active", 4096)
    assert client.models.retrieve("org/with/slashes").id == "org/with/slashes"
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.models.retrieve("nope")
    body: Any = missing.value.body
    assert body["error"]["type"] == "not_found_error"
    assert json.loads(post(gateway, "/v1/models")[1])["object"] == "list"
