"""Prefixes, dialects, parameters without effect, headers for retries and padding, through a real gateway process."""

import asyncio
import http.client
import json
from typing import Any

import pytest
from aiohttp import web
from openai import OpenAI

KEY = "sk-tw-test-key"
HELLO = [{"role": "user", "content": "Say hello"}]
PADDING = 0.4


@pytest.fixture(scope="module")
def gateway_options() -> tuple[str, ...]:
    return ("--padding", str(PADDING))


class Told:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def send(gateway: Any, path: str, members: dict[str, Any] | None, **headers: str) -> Told:
    host, port = gateway.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    body = None if members is None else json.dumps({"model": "assistant", "messages": HELLO, **members}).encode()
    try:
        given = {"content-type": "application/json", "authorization": f"Bearer {KEY}", **headers}
        connection.request("GET" if body is None else "POST", path, body, given)
        return Told(connection.getresponse())
    finally:
        connection.close()


def failing(status: int, **headers: str) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=status, headers=headers)

    return script


def slow(seconds: float, then: Any) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await then(request, seen)

    return script


@pytest.mark.parametrize("prefix", ["", "/openai", "/inference"])
def test_every_path_is_served_under_each_prefix(gateway: Any, prefix: str) -> None:
    assert "assistant" in [model["id"] for model in send(gateway, f"{prefix}/v1/models", None).json["data"]]
    assert send(gateway, f"{prefix}/v1/models/org%2Fwith%2Fslashes", None).json["id"] == "org/with/slashes"
    answer = send(gateway, f"{prefix}/v1/chat/completions", {})
    # The dialect under /openai measures its upstream's stream, which has other words here than the whole answer.
    expected = "Hello there!" if prefix == "/openai" else "Hello!"
    assert answer.json["choices"][0]["message"]["content"] == expected
    assert send(gateway, f"{prefix}/v1/nowhere", {}).status == 404
    moderation = send(gateway, f"{prefix}/v1/moderations", {"input": "x"})
    assert (moderation.status, moderation.json["error"]["code"]) == (404, "model_not_found")
    assert send(gateway, f"{prefix}/healthz", None).status == (404 if prefix else 200)


def test_groqs_times_are_measured_on_a_stream_that_nobody_asked_for(gateway: Any) -> None:
    answer = send(gateway, "/openai/v1/chat/completions", {"seed": 5}).json
    assert gateway.upstream.seen[-1].body["stream"] is True
    assert answer["choices"][0]["message"]["content"] == "Hello there!"
    assert answer["service_tier"] == "on_demand"
    assert answer["x_groq"]["seed"] == 5
    usage = answer["usage"]
    assert usage["total_time"] == pytest.approx(usage["prompt_time"] + usage["completion_time"])
    assert usage["prompt_time"] > 0
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["prompt_tokens_details"]["cached_tokens"]) == (
        12, 3, 4,
    )  # fmt: skip


def test_an_error_in_groqs_shape_and_a_flex_tier_without_room(gateway: Any) -> None:
    gateway.upstream.script = failing(498)
    told = send(gateway, "/openai/v1/chat/completions", {"service_tier": "flex"})
    assert told.status == 498
    assert set(told.json["error"]) == {"message", "type", "code"}
    assert gateway.upstream.seen[-1].body["service_tier"] == "flex"
    assert send(gateway, "/v1/chat/completions", {}).status == 503


def test_clients_are_told_when_to_come_back(gateway: Any) -> None:
    gateway.upstream.script = failing(429, **{"retry-after": "200"})
    busy = send(gateway, "/v1/chat/completions", {})
    assert (busy.headers["retry-after"], "x-should-retry" in busy.headers) == ("60", False)
    gateway.upstream.script = failing(402)
    assert send(gateway, "/v1/chat/completions", {}).headers["x-should-retry"] == "false"


def test_every_answer_says_whose_it_is(gateway: Any) -> None:
    for path, name in (("/v1/chat/completions", "openai-organization"), ("/v1/messages", "anthropic-organization-id")):
        headers = send(gateway, path, {"max_tokens": 9}).headers
        assert (headers[name], headers["openai-version"]) == ("org_1", "2020-10-01")
    assert "openai-organization" not in send(gateway, "/v1/models", None, authorization="Bearer sk-none").headers


def test_every_answer_is_named_and_timed(gateway: Any) -> None:
    for told in (send(gateway, "/v1/chat/completions", {}), send(gateway, "/v1/chat/completions", {"model": "none"})):
        assert told.headers["x-request-id"] == told.headers["request-id"]
        assert int(told.headers["openai-processing-ms"]) >= 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_of_the_same_protocol_gets_everything(gateway: Any, stream: bool) -> None:
    extras = {"verbosity": "low", "web_search_options": {}, "service_tier": "flex", "audio": {"voice": "a"}}
    told = send(gateway, "/v1/chat/completions", {"stream": stream, **extras}, **{"x-tokenworks-strict": "true"})
    assert told.status == 200
    assert "x-tokenworks-ignored" not in told.headers
    assert extras.items() <= gateway.upstream.seen[-1].body.items()


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion_is_stored_here_or_nowhere_and_its_caller_knows(gateway: Any, stream: bool) -> None:
    """This gateway's control keeps no answers."""
    told = send(gateway, "/v1/chat/completions", {"stream": stream, "store": True, "metadata": {"a": "b"}})
    assert not {"store", "metadata"} & gateway.upstream.seen[-1].body.keys()
    assert told.status == 200
    if stream:
        assert b": this completion could not be stored\n\n" in told.body
        assert told.body.endswith(b"data: [DONE]\n\n")
    else:
        assert told.json["store"] is False
        assert told.json["choices"][0]["message"]["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_what_has_no_effect_on_a_model_of_ours_is_reported_or_refused(gateway: Any, stream: bool) -> None:
    asked = {"model": "ours", "stream": stream, "verbosity": "low", "user": "u", "store": False, "prediction": None}
    told = send(gateway, "/v1/chat/completions", asked)
    assert (told.status, told.headers["x-tokenworks-ignored"]) == (200, "user,verbosity")
    calls = len(gateway.upstream.seen)
    refused = send(gateway, "/v1/chat/completions", asked, **{"x-tokenworks-strict": "true"})
    assert (refused.status, refused.json["error"]["param"]) == (400, "user")
    assert len(gateway.upstream.seen) == calls
    plain = {"model": "ours", "stream": stream}
    assert send(gateway, "/v1/chat/completions", plain, **{"x-tokenworks-strict": "true"}).status == 200


def test_a_header_carries_no_more_of_a_name_than_is_safe(gateway: Any) -> None:
    odd = {"a\r\nset-cookie: b": 1, "ä,ö": 1, "x" * 5000: 1, **{f"n{number}": 1 for number in range(1000)}}
    told = send(gateway, "/v1/chat/completions", {"model": "ours", **odd})
    assert told.status == 200
    assert "set-cookie" not in told.headers
    names = told.headers["x-tokenworks-ignored"].split(",")
    assert names[0] == "a??set-cookie??b"
    assert len(names) == 50
    assert max(map(len, names)) <= 60


@pytest.mark.parametrize(
    "members",
    [
        {"web_search_options": {"search_context_size": "low"}},
        {"audio": {"voice": "a"}},
        {"modalities": ["audio"]},
        {"functions": [{"name": "f"}]},
        {"compliance": "hipaa"},
        {"response_format": {"type": "grammar", "grammar": "x"}},
    ],
)
def test_what_shapes_the_answer_is_refused_where_it_cannot_be_done(gateway: Any, members: dict[str, Any]) -> None:
    told = send(gateway, "/v1/chat/completions", {"model": "ours", **members})
    assert (told.status, told.json["error"]["param"]) == (400, next(iter(members)))


def test_unusual_ways_of_asking_reach_a_model_of_ours_in_the_usual_one(gateway: Any) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "b"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    asked = {
        "model": "ours",
        "logprobs": 2,
        "tools": tools,
        "tool_choice": choice,
        "response_format": {"type": "json_object", "schema": schema},
        "service_tier": "auto",
    }
    told = send(gateway, "/v1/chat/completions", asked)
    assert (told.status, told.json["service_tier"]) == (200, "default")
    sent = gateway.upstream.seen[-1].body
    assert (sent["logprobs"], sent["top_logprobs"], sent["tool_choice"]) == (True, 2, "required")
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["b"]
    assert sent["response_format"]["json_schema"]["schema"] == schema
    assert "x-tokenworks-ignored" not in told.headers


def test_what_another_protocol_cannot_say_is_reported(gateway: Any) -> None:
    async def message(request: web.Request, seen: Any) -> web.StreamResponse:
        usage = {"input_tokens": 1, "output_tokens": 1}
        content = [{"type": "text", "text": "Hi"}]
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "c", "stop_reason": "end_turn"}
        return web.json_response({**head, "stop_sequence": None, "content": content, "usage": usage})

    gateway.upstream.script = message
    asked = {"model": "claude", "seed": 1, "user": "u", "verbosity": "low", "reasoning_effort": "low"}
    told = send(gateway, "/v1/chat/completions", asked)
    assert told.status == 200
    assert sorted(told.headers["x-tokenworks-ignored"].split(",")) == ["seed", "verbosity"]


def test_a_caller_who_waits_for_a_whole_answer_is_kept_alive(gateway: Any) -> None:
    gateway.upstream.script = slow(3 * PADDING, gateway.upstream.script)
    told = send(gateway, "/v1/chat/completions", {})
    assert told.status == 200
    assert told.body.startswith(b" \n")
    assert told.json["choices"][0]["message"]["content"] == "Hello!"
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        answer = client.chat.completions.create(model="assistant", messages=HELLO)  # type: ignore[arg-type]
    assert answer.choices[0].message.content == "Hello!"


def test_an_error_after_padding_is_told_in_the_body(gateway: Any) -> None:
    gateway.upstream.script = slow(2 * PADDING, failing(500))
    told = send(gateway, "/v1/chat/completions", {})
    assert (told.status, told.json["error"]["code"]) == (200, "upstream_broken")


def test_a_padded_caller_who_leaves_cancels_the_call(gateway: Any) -> None:
    gateway.upstream.script = slow(5, gateway.upstream.script)
    host, port = gateway.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    body = json.dumps({"model": "assistant", "messages": HELLO})
    connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {KEY}"})
    assert connection.getresponse().read(2) == b" \n"
    connection.close()
    assert gateway.upstream.seen[-1].closed.wait(10)
