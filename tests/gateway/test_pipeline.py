"""Requests through a real gateway process: what the caller gets, what the upstream got, what was journaled."""

import asyncio
import http.client
import json
import socket
import time
from typing import Any

import pytest
from aiohttp import web

KEY = "sk-tw-test-key"
HELLO = [{"role": "user", "content": "Say hello"}]


class Reply:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


def post(gateway: Any, body: Any, path: str = "/v1/chat/completions", key: str | None = KEY, **headers: str) -> Reply:
    return call(gateway, "POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), key, **headers)


def call(
    gateway: Any, method: str, path: str, body: bytes | None = None, key: str | None = KEY, **headers: str
) -> Reply:
    host, port = gateway.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    try:
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        return Reply(connection.getresponse())
    finally:
        connection.close()


def chat(**members: Any) -> dict[str, Any]:
    return {"model": "assistant", "messages": HELLO, **members}


def test_a_whole_answer_passes_through_and_is_billed(gateway: Any) -> None:
    reply = post(gateway, chat(max_tokens=20, temperature=0))
    assert reply.status == 200
    assert reply.json["choices"][0]["message"]["content"] == "Hello!"
    assert gateway.upstream.seen[0].path == "/v1/chat/completions"
    assert gateway.upstream.seen[0].body == {
        "model": "model-1", "messages": HELLO, "max_tokens": 20, "temperature": 0
    }  # fmt: skip
    assert "sk-tw" not in json.dumps(gateway.upstream.seen[0].headers)
    request_id = reply.headers["x-request-id"]
    settled = gateway.control.settled(request_id)
    assert (settled.outcome, settled.usage.input, settled.usage.output) == ("completed", 12, 3)
    assert settled.charge == (12 * 150_000_000 + 3 * 600_000_000) // 1_000_000
    assert not settled.estimated
    assert (settled.price, settled.cost_price) == ("price_1", "")
    assert reply.headers["x-tokenworks-cost-nano-usd"] == str(settled.charge) == "3600"
    assert reply.headers["x-tokenworks-request-id"] == request_id
    assert (reply.json["usage"]["cost"], reply.json["usage"]["cost_nano_usd"]) == (0.0000036, 3600)
    opened = gateway.control.opened(request_id)
    assert (opened.model, opened.upstream_model, opened.project_id) == ("assistant", "model-1", "proj_1")


def test_a_stream_passes_through_without_the_usage_nobody_asked_for(gateway: Any) -> None:
    reply = post(gateway, chat(stream=True))
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in reply.body.split(b"\n") if line]
    assert all(line.startswith(b"data: ") for line in lines)
    assert lines[-1] == b"data: [DONE]"
    decoded = [json.loads(line[6:]) for line in lines[:-1]]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in decoded) == "Hello there!"
    assert not any(chunk.get("usage") for chunk in decoded)
    assert gateway.upstream.seen[0].body["stream_options"] == {"include_usage": True}
    settled = gateway.control.settled(reply.headers["x-request-id"])
    assert (settled.usage.input, settled.usage.cached_input, settled.usage.output) == (8, 4, 3)
    assert settled.first_token_ns > 0


def test_a_stream_ends_with_usage_when_asked(gateway: Any) -> None:
    reply = post(gateway, chat(stream=True, stream_options={"include_usage": True}))
    last = json.loads(reply.body.split(b"\n\n")[-3][6:])
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 3
    settled = gateway.control.settled(reply.headers["x-request-id"])
    assert last["usage"]["cost_nano_usd"] == settled.charge == 8 * 150 + 4 * 75 + 3 * 600
    assert last["usage"]["cost"] == settled.charge / 1e9


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        (b"{", 400, None, "invalid_json"),
        (b"", 400, None, "invalid_json"),
        (b"[]", 400, None, "invalid_value"),
        (b'"\xff"', 400, None, None),
        ({"messages": HELLO}, 400, "model", "missing_required_parameter"),
        ({"model": "assistant"}, 400, "messages", "missing_required_parameter"),
        ({"model": "assistant", "messages": []}, 400, "messages", "invalid_value"),
        ({"model": "assistant", "messages": [{"role": "wat", "content": "x"}]}, 400, "messages[0].role", None),
        ({"model": "assistant", "messages": [{"role": "user"}]}, 400, "messages[0].content", None),
        ({"model": "assistant", "messages": [{"role": "user", "content": None}]}, 400, "messages[0].content", None),
        ({"model": "assistant", "messages": [{"role": "assistant"}]}, 400, "messages[0]", None),
        (chat(messages=[{"role": "user", "content": [{"text": "x"}]}]), 400, "messages[0].content[0].type", None),
        (chat(tools=[{"type": "function"}]), 400, "tools[0].function", "missing_required_parameter"),
        (chat(max_tokens="ten"), 400, "max_tokens", "invalid_value"),
        (chat(max_tokens=0), 400, "max_tokens", "invalid_value"),
        (chat(max_tokens=1, max_completion_tokens=2), 400, "max_tokens", None),
        (chat(temperature=3), 400, "temperature", "invalid_value"),
        (chat(n=0), 400, "n", "invalid_value"),
        (chat(top_logprobs=3), 400, "top_logprobs", None),
        (chat(stop=["a"] * 17), 400, "stop", None),
        (chat(tool_choice="required"), 400, "tool_choice", None),
        (chat(tool_choice={"type": "function", "function": {"name": "f"}}), 400, "tool_choice", None),
        (chat(stream_options={"include_usage": True}), 400, "stream_options", None),
        (chat(response_format={"type": "json_schema"}), 400, "response_format.json_schema", None),
        (chat(model="nope"), 404, "model", "model_not_found"),
        (chat(model="warming"), 503, None, "model_not_ready"),
        (chat(model="plain", tools=[{"type": "function", "function": {"name": "f"}}]), 400, "tools", None),
    ],
)
def test_bad_input_is_refused_by_name(
    gateway: Any, body: Any, status: int, param: str | None, code: str | None
) -> None:
    reply = post(gateway, body)
    assert reply.status == status, reply.body
    assert set(reply.error) == {"message", "type", "param", "code"}
    if param is not None:
        assert reply.error["param"] == param
    if code is not None:
        assert reply.error["code"] == code
    assert reply.headers["x-request-id"]
    assert not gateway.upstream.seen


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (None, 401, "missing_api_key"),
        ("sk-tw-wrong", 401, "invalid_api_key"),
        ("x" * 5000, 401, "invalid_api_key"),
        ("sk-tw-expired-key", 401, "expired_api_key"),
        ("sk-tw-limited-key", 403, "permission_denied"),
    ],
)
def test_keys_are_checked_before_anything_else(gateway: Any, key: str | None, status: int, code: str) -> None:
    reply = post(gateway, chat(), key=key)
    assert (reply.status, reply.error["code"]) == (status, code)
    if key:
        assert key not in reply.body.decode()


def test_other_auth_headers_of_the_field_are_understood(gateway: Any) -> None:
    assert post(gateway, chat(), key=None, **{"x-api-key": KEY}).status == 200
    assert post(gateway, chat(), key=None, Authorization=f"Token {KEY}").status == 200


def test_a_body_over_the_limit_is_refused_and_the_connection_closed(gateway: Any) -> None:
    reply = post(gateway, chat(messages=[{"role": "user", "content": "x" * 300_000}]))
    assert (reply.status, reply.error["code"]) == (413, "request_too_large")
    assert reply.headers["connection"] == "close"


def test_unknown_paths_and_methods(gateway: Any) -> None:
    assert call(gateway, "POST", "/v1/nothing", b"{}").error["code"] == "unknown_path"
    assert call(gateway, "GET", "/v1/completions").status == 405


def test_models_are_listed_for_the_key_and_found_with_slashes(gateway: Any) -> None:
    names = [model["id"] for model in call(gateway, "GET", "/v1/models").json["data"]]
    assert "assistant" in names
    assert "org/with/slashes" in names
    limited = call(gateway, "GET", "/v1/models", key="sk-tw-limited-key").json["data"]
    assert [model["id"] for model in limited] == ["texts"]
    for path in ("/v1/models/org/with/slashes", "/v1/models/org%2Fwith%2Fslashes"):
        assert call(gateway, "GET", path).json["id"] == "org/with/slashes"
    assert call(gateway, "GET", "/v1/models/nope").status == 404
    assert call(gateway, "GET", "/v1/models", key=None).status == 401


def answering(status: int, body: Any, **headers: str) -> Any:
    async def script(request: web.Request, seen: Any) -> web.Response:
        return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body), headers=headers)

    return script


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("upstream", "status", "code"),
    [
        ((400, {"error": {"message": "bad thing", "param": "messages[0]"}}), 400, "invalid_request"),
        (
            (400, {"error": {"type": "exceed_context_size_error", "message": "5031 tokens exceed"}}),
            400,
            "context_length_exceeded",
        ),
        ((401, {"error": {"message": "Incorrect API key: sk-secret"}}), 502, "upstream_authentication"),
        ((404, {"error": {"message": "no such model"}}), 502, "upstream_not_found"),
        ((429, {"error": "slow down"}), 503, "upstream_overloaded"),
        ((500, "<html>oops</html>"), 502, "upstream_broken"),
        ((503, ""), 503, "upstream_unavailable"),
        ((302, ""), 502, "upstream_broken"),
    ],
)
def test_an_upstreams_error_keeps_its_cause(
    gateway: Any, upstream: tuple[int, Any], status: int, code: str, stream: bool
) -> None:
    gateway.upstream.script = answering(*upstream)
    reply = post(gateway, chat(stream=stream))
    assert (reply.status, reply.error["code"]) == (status, code)
    assert reply.headers["x-tokenworks-provider"] == "upstream-a"
    assert b"sk-secret" not in reply.body
    settled = gateway.control.settled(reply.headers["x-request-id"])
    assert (settled.outcome, settled.charge, settled.error) == ("failed", 0, code)


def test_a_refused_connection_is_a_clean_error_and_the_next_target_rescues(gateway: Any) -> None:
    reply = post(gateway, chat(model="down"))
    assert (reply.status, reply.error["code"]) == (503, "upstream_unavailable")
    assert reply.headers["retry-after"] == "1"
    rescued = post(gateway, chat(model="rescued"))
    assert rescued.status == 200
    assert rescued.headers["x-tokenworks-provider"] == "upstream-a"


def test_a_garbled_whole_answer_is_never_passed_on(gateway: Any) -> None:
    for body in ("not json", '{"choices": []}', '{"choices": [{"index": 0, "message": {"content": "cut"}}]}'):
        gateway.upstream.script = answering(200, body)
        reply = post(gateway, chat())
        assert (reply.status, reply.error["code"]) == (502, "upstream_broken"), body


def streaming(pieces: list[bytes], *, hang: bool = False, abort: bool = False) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0.05)
        if hang:
            await asyncio.sleep(30)
        if abort and request.transport is not None:
            await asyncio.sleep(0.1)
            request.transport.abort()
        return response

    return script


def last_event(reply: Reply) -> Any:
    return json.loads(reply.body.strip().split(b"\n\n")[-1].removeprefix(b"data: "))


def delta(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return b"data: " + json.dumps({"id": "c", "model": "m", "choices": [choice]}).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (streaming([delta("Hel")]), "upstream_broken"),
        (streaming([delta("Hel"), b"data: [DONE]\n\n"]), "upstream_broken"),
        (streaming([delta("Hel")], abort=True), "upstream_broken"),
        (streaming([delta("Hel"), b"data: {garbled\n\n"]), "upstream_broken"),
        (streaming([delta("Hel"), b'data: {"error": {"message": "boom", "code": 500}}\n\n']), "upstream_broken"),
        (streaming([delta("Hel")], hang=True), "idle_timeout"),
    ],
)
def test_a_broken_stream_ends_with_an_error_and_never_looks_complete(gateway: Any, script: Any, code: str) -> None:
    gateway.upstream.script = script
    reply = post(gateway, chat(stream=True))
    assert reply.status == 200
    assert b"Hel" in reply.body
    assert b"[DONE]" not in reply.body
    assert last_event(reply)["error"]["code"] == code
    assert gateway.control.settled(reply.headers["x-request-id"]).outcome == "failed"


def test_a_silent_upstream_is_bounded_and_the_waiting_client_is_kept_alive(gateway: Any) -> None:
    gateway.upstream.script = streaming([b": ping\n\n"], hang=True)
    reply = post(gateway, chat(stream=True))
    assert b": keep-alive\n\n" in reply.body
    assert last_event(reply)["error"]["code"] == "first_token_timeout"


def test_odd_dress_of_chunks_is_put_right(gateway: Any) -> None:
    pieces = [
        b": hello\n\n", b"id: 1\nevent: chunk\n" + delta("Hi"), b"event: ping\n\n", b"retry: 10\n\n",
        b'data:{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\r\n\r\n', b"data:[DONE]\n\n",
    ]  # fmt: skip
    gateway.upstream.script = streaming(pieces)
    lines = [line for line in post(gateway, chat(stream=True)).body.split(b"\n") if line]
    assert all(line.startswith(b"data: ") for line in lines)
    assert lines[-1] == b"data: [DONE]"
    assert len(lines) == 3


def test_a_client_that_leaves_cancels_its_upstream_call_and_pays_for_what_it_got(gateway: Any) -> None:
    gateway.upstream.script = streaming([delta("one"), delta(" two")], hang=True)
    host, port = gateway.url.removeprefix("http://").split(":")
    body = json.dumps(chat(stream=True)).encode()
    with socket.create_connection((host, int(port)), 10) as client:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        client.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        received = b""
        while b" two" not in received:
            received += client.recv(65536)
    assert gateway.upstream.seen[0].closed.wait(5)
    request_id = received.split(b"x-request-id: ")[1].split(b"\r\n")[0].decode()
    settled = gateway.control.settled(request_id)
    assert (settled.outcome, settled.status) == ("cancelled", 499)
    assert settled.usage.output == 2
    assert settled.charge > 0
    assert settled.estimated


def test_slow_headers_and_huge_headers_are_cut_off(gateway: Any) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert b" 408 " in received
    assert b"header_timeout" in received
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-big: " + b"a" * 70_000)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert b" 431 " in received
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(b"this is not http\r\n\r\n")
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert b" 400 " in received


def test_a_body_that_never_comes_ends_with_the_connection(gateway: Any) -> None:
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n".encode())
        client.sendall(b"content-length: 100\r\n\r\n{")
    assert call(gateway, "GET", "/healthz").status == 200


def test_text_completions(gateway: Any) -> None:
    body = {"id": "x", "model": "model-t", "choices": [{"index": 0, "text": " blue", "finish_reason": "stop"}]}
    gateway.upstream.script = answering(200, body | {"usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    reply = post(gateway, {"model": "texts", "prompt": "The sky is"}, "/v1/completions")
    assert reply.json["choices"][0]["text"] == " blue"
    assert gateway.upstream.seen[0].body["prompt"] == "The sky is"
    assert post(gateway, {"model": "texts", "prompt": []}, "/v1/completions").error["param"] == "prompt"
    wrong = post(gateway, {"model": "assistant", "prompt": "x"}, "/v1/completions")
    assert (wrong.status, wrong.error["param"]) == (400, "model")


def test_admin_paths_reach_control(gateway: Any) -> None:
    reply = call(gateway, "GET", "/admin/v1/keys?limit=3", key="sk-tw-admin")
    assert reply.json == {"path": "/admin/v1/keys?limit=3", "authorization": "Bearer sk-tw-admin"}


def test_health_ready_and_metrics(gateway: Any) -> None:
    assert call(gateway, "GET", "/healthz", key=None).status == 200
    ready = call(gateway, "GET", "/readyz", key=None)
    assert ready.status == 200
    assert ready.json["components"]["model"]["name"] == "assistant"
    post(gateway, chat(stream=True))
    text = call(gateway, "GET", "/metrics", key=None).body.decode()
    for name in ("requests_total", "tokens_total", "time_to_first_token", "inter_token", "queue_time", "in_flight"):
        assert f"tokenworks_{name}" in text
    assert 'model="nope"' not in text


def test_log_lines_have_the_request_id_and_no_prompt(gateway: Any) -> None:
    reply = post(gateway, chat(messages=[{"role": "user", "content": "a secret plan"}]))
    time.sleep(0.1)
    log = gateway.log()
    assert reply.headers["x-request-id"] in log
    assert "a secret plan" not in log
    assert KEY not in log
