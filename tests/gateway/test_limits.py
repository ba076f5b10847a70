"""Limits and budgets through a real gateway: what is refused, with which words, and what is given back."""

import asyncio
import hashlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from aiohttp import web
from msgspec.structs import replace as replace_record
from tests.gateway.conftest import chunk, publish_and_wait, stream

from tokenworks.snapshot.records import LimitRecord

KEY = "sk-tw-test-key"
KEY_ID = f"key_{hashlib.sha256(KEY.encode()).hexdigest()[:8]}"
CLIENT = httpx2.Client(timeout=20)
DAY = 86_400
WINDOWS = itertools.count(DAY + 1)
"""A window that no other test has counted in."""


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    with CLIENT:
        yield


@pytest.fixture
def limited(gateway: Any) -> Iterator[Callable[..., None]]:
    """`limited(LimitRecord, ...)` puts limits in force; afterwards there are none."""
    plain = gateway.control._state

    def enforce(*limits: LimitRecord) -> None:
        publish_and_wait(gateway, replace(plain, limits={limit.name: limit for limit in limits}))

    yield enforce
    enforce()


def ask(gateway: Any, **members: Any) -> httpx2.Response:
    body = {"model": "assistant", "messages": [{"role": "user", "content": "Hi"}], **members}
    headers = {"Authorization": f"Bearer {KEY}"}
    return CLIENT.post(f"{gateway.url}/v1/chat/completions", headers=headers, json=body)


def slow(seconds: float) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        body = {"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}], "model": "model-1"}
        return web.json_response({**body, "usage": {"prompt_tokens": 10, "completion_tokens": 5}})

    return script


def refusing(status: int) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=status)

    return script


@pytest.mark.parametrize(
    ("scope", "owner"), [("key", KEY_ID), ("project", "proj_1"), ("organization", "org_1"), ("model", "assistant")]
)
def test_requests_are_limited_on_every_level(gateway: Any, limited: Any, scope: str, owner: str) -> None:
    limited(LimitRecord(scope, owner, None, "requests", 2, window=DAY))
    assert [ask(gateway).status_code for _ in range(4)] == [200, 200, 429, 429]
    refused = ask(gateway)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert f"{scope} {owner}" in refused.json()["error"]["message"]
    assert len(gateway.upstream.seen) == 2
    limited(LimitRecord(scope, owner, None, "requests", 3, window=DAY))
    assert [ask(gateway).status_code for _ in range(2)] == [200, 429], "an edit of a limit never resets its window"


def test_a_limit_for_one_model_leaves_the_others_alone(gateway: Any, limited: Any) -> None:
    limited(LimitRecord("project", "proj_1", "org/with/slashes", "requests", 0, window=DAY))
    assert ask(gateway, model="org/with/slashes").status_code == 429
    assert ask(gateway).status_code == 200


def test_tokens_are_reserved_and_what_was_not_used_is_given_back(gateway: Any, limited: Any) -> None:
    limited(LimitRecord("organization", "org_1", None, "tokens", 700, window=DAY))
    for _ in range(20):
        assert ask(gateway, max_tokens=200).status_code == 200
    used = 20 * 15
    assert (
        ask(gateway, max_tokens=500, messages=[{"role": "user", "content": "x" * 4 * (700 - used)}]).status_code == 429
    )


def test_a_budget_ends_to_the_nano_dollar(gateway: Any, limited: Any) -> None:
    """12 input at 0.15 and 3 output at 0.60 USD per million: 3,600 nano-dollars a request."""
    limited(LimitRecord("project", "proj_1", None, "spend_nano_usd", 200_000, period="month", strict=True))
    charges = 0
    while (answer := ask(gateway, max_tokens=100)).status_code == 200 and charges < 70:
        charges += 1
    assert answer.json()["error"]["code"] == "insufficient_quota"
    assert charges * 3_600 <= 200_000
    assert (charges + 1) * 3_600 + 100 * 600 + 60_000 > 200_000, "refused only when the worst case did not fit"


def test_failed_requests_give_their_tokens_back(gateway: Any, limited: Any) -> None:
    limited(LimitRecord("key", KEY_ID, None, "output_tokens", 1_000, window=DAY))
    gateway.upstream.script = refusing(500)
    for _ in range(10):
        assert ask(gateway, max_tokens=500).status_code == 502
    gateway.upstream.script = slow(0)
    assert ask(gateway, max_tokens=500).status_code == 200


def test_concurrency_is_a_lease_that_a_leaving_caller_gives_back(gateway: Any, limited: Any) -> None:
    limited(LimitRecord("project", "proj_1", None, "concurrency", 2))
    gateway.upstream.script = slow(1.0)
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(ask(gateway).status_code)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 200, 429, 429, 429]
    gateway.upstream.script = slow(30)
    for _ in range(2):
        with pytest.raises(httpx2.TimeoutException):
            httpx2.post(
                f"{gateway.url}/v1/chat/completions",
                headers={"Authorization": f"Bearer {KEY}"},
                json={"model": "assistant", "messages": [{"role": "user", "content": "Hi"}]},
                timeout=0.3,
            )
    time.sleep(0.3)
    gateway.upstream.script = slow(0)
    assert ask(gateway).status_code == 200


def talking(count: int, pause: float = 0.0) -> Any:
    """A stream of so many words, all but the end of it in pieces of their own."""

    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        words = [chunk({"content": f"w{number} "}) for number in range(count)]
        return await stream(request, [*words, chunk({}, finish="stop"), b"data: [DONE]\n\n"], pause=pause)

    return script


def in_one_write(count: int) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        words = b"".join(chunk({"content": f"w{number} "}) for number in range(count))
        return await stream(request, [words + chunk({}, finish="stop") + b"data: [DONE]\n\n"])

    return script


def texts(count: int, pause: float) -> Any:
    """The same of an upstream that completes texts."""

    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        def piece(text: str, finish: str | None = None) -> bytes:
            choice = {"index": 0, "text": text, "finish_reason": finish}
            return b"data: " + json.dumps({"id": "c", "created": 1, "choices": [choice]}).encode() + b"\n\n"

        words = [piece(f"w{number} ") for number in range(count)]
        words = words if pause else [b"".join(words)]
        return await stream(request, [*words, piece("", "stop"), b"data: [DONE]\n\n"], pause=pause)

    return script


HI = [{"role": "user", "content": "Hi"}]
USAGE = {"stream_options": {"include_usage": True}}
STREAMS: dict[str, tuple[str, dict[str, Any], str, str, str]] = {
    "openai_chat": (
        "/v1/chat/completions",
        {"messages": HI, **USAGE},
        '"finish_reason":"length"',
        '"completion_tokens":40',
        "data: [DONE]",
    ),
    "openai_completions": (
        "/v1/completions",
        {"model": "texts", "prompt": "Hi", "max_tokens": 5000, **USAGE},
        '"finish_reason":"length"',
        '"completion_tokens":40',
        "data: [DONE]",
    ),
    "anthropic_messages": (
        "/v1/messages",
        {"messages": HI, "max_tokens": 5000},
        '"stop_reason":"max_tokens"',
        '"output_tokens":40',
        'data: {"type":"message_stop"}',
    ),
    "openai_responses": (
        "/v1/responses",
        {"input": "Hi", "store": False},
        '"reason":"max_output_tokens"',
        '"output_tokens":40',
        "",
    ),
    "groq_chat": (
        "/openai/v1/chat/completions",
        {"messages": HI},
        '"finish_reason":"length"',
        '"completion_tokens":40',
        "data: [DONE]",
    ),
    "fireworks_chat": (
        "/inference/v1/chat/completions",
        {"messages": HI, **USAGE},
        '"finish_reason":"length"',
        '"completion_tokens":40',
        "data: [DONE]",
    ),
    "fireworks_completions": (
        "/inference/v1/completions",
        {"model": "texts", "prompt": "Hi", "max_tokens": 5000, **USAGE},
        '"finish_reason":"length"',
        '"completion_tokens":40',
        "data: [DONE]",
    ),
    "tgi": (
        "/generate_stream",
        {"inputs": "Hi", "parameters": {"adapter_id": "texts", "max_new_tokens": 5000}},
        '"finish_reason":"length"',
        '"generated_tokens":40',
        "",
    ),
}
"""By surface: its path, what is asked, how a maximum is told there, how the usage, and how a stream ends."""


@pytest.mark.parametrize("surface", STREAMS)
@pytest.mark.parametrize("pause", [0.002, 0.0], ids=["slow", "in one write"])
def test_a_stream_ends_cleanly_when_a_strict_limit_ends(gateway: Any, limited: Any, surface: str, pause: float) -> None:
    path, members, finish, usage, end = STREAMS[surface]
    limited(LimitRecord("key", KEY_ID, None, "output_tokens", 40, window=next(WINDOWS), strict=True))
    gateway.upstream.script = talking(200, pause) if pause else in_one_write(200)
    if surface in ("openai_completions", "fireworks_completions", "tgi"):
        gateway.upstream.script = texts(200, pause)
    body = members if surface == "tgi" else {"model": "assistant", "stream": True, **members}
    headers = {"Authorization": f"Bearer {KEY}"}
    answer = CLIENT.post(f"{gateway.url}{path}", headers=headers, json=body)
    assert answer.status_code == 200, answer.text
    assert finish in answer.text
    assert usage in answer.text, answer.text[-700:]
    assert "w39 " in answer.text
    assert "w40 " not in answer.text
    assert ": the limit of key" in answer.text or surface in ("openai_responses", "anthropic_messages")
    assert answer.text.rstrip().endswith(end)
    settled = gateway.control.settled(answer.headers["x-tokenworks-request-id"])
    assert (settled.usage.output, settled.outcome, settled.finish_reason) == (40, "completed", "length")
    refused = ask(gateway, max_tokens=20)
    assert refused.status_code == 429, "not one token is left"


def test_the_upstream_of_an_ended_stream_is_cancelled(gateway: Any, limited: Any) -> None:
    limited(LimitRecord("key", KEY_ID, None, "output_tokens", 30, window=next(WINDOWS), strict=True))
    gateway.upstream.script = talking(10_000, 0.005)
    assert ask(gateway, stream=True).status_code == 200
    assert gateway.upstream.seen[-1].closed.wait(5)


def test_a_whole_answer_is_ended_too_and_says_why(gateway: Any, limited: Any) -> None:
    limited(LimitRecord("key", KEY_ID, None, "output_tokens", 30, window=next(WINDOWS), strict=True))
    gateway.upstream.script = talking(100)
    answer = ask(gateway)
    assert answer.status_code == 200
    choice = answer.json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].split()[-1] == "w29"
    assert answer.json()["usage"]["completion_tokens"] == 30
    assert answer.headers["x-tokenworks-ended"] == f"the limit of key {KEY_ID} is used up"


def test_the_last_of_a_budget_is_spent_in_the_stream_to_the_last_token(gateway: Any, limited: Any) -> None:
    """0.60 USD per million tokens of output: 600 nano-dollars each."""
    limited(LimitRecord("project", "proj_1", None, "spend_nano_usd", 100_000, period="week"))
    gateway.upstream.script = talking(1_000)
    answer = ask(gateway, stream=True, max_tokens=900)
    settled = gateway.control.settled(answer.headers["x-tokenworks-request-id"])
    assert settled.finish_reason == "length"
    assert answer.text.count('"content":"w') == settled.usage.output
    assert settled.usage.output >= 16
    assert 0 < settled.charge <= 100_000


def test_a_plain_limit_counts_a_running_stream_but_never_ends_it(gateway: Any, limited: Any) -> None:
    limited(LimitRecord("key", KEY_ID, None, "output_tokens", 600, window=next(WINDOWS)))
    gateway.upstream.script = talking(1_500, 0.0005)
    answer = ask(gateway, stream=True)
    assert '"finish_reason":"stop"' in answer.text.replace(" ", "")
    settled = gateway.control.settled(answer.headers["x-tokenworks-request-id"])
    assert settled.usage.output == 1_500
    assert ask(gateway).status_code == 429


def test_every_model_that_is_tried_takes_from_its_own_limits(gateway: Any, limited: Any) -> None:
    limited(LimitRecord("model", "plain", None, "requests", 1, DAY))
    models = {"model": "down", "models": ["plain"]}
    assert ask(gateway, **models).status_code == 200
    assert ask(gateway, **models).status_code == 429


def test_an_explanation_tells_what_is_left_and_takes_nothing_of_it(gateway: Any, limited: Callable[..., None]) -> None:
    requests = LimitRecord("key", KEY_ID, None, "requests", 1, window=next(WINDOWS))
    tokens = LimitRecord("project", "proj_1", "assistant", "tokens", 1_000_000, window=next(WINDOWS))
    bought = LimitRecord("provider", "upstream-a", None, "requests", 1, window=next(WINDOWS))
    budget = LimitRecord("organization", "org_1", None, "spend_nano_usd", 10**9, period="month")
    limited(budget, tokens, requests, bought)

    def explained(**members: Any) -> Any:
        body = {"model": "assistant", "messages": [{"role": "user", "content": "Hi"}], **members}
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx2.post(f"{gateway.url}/v1/route:explain", headers=headers, json=body, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.json()["models"][0]

    for _ in range(3):
        found = explained()
        first, second, third = found["limits"]
        assert (first["scope"], first["used"], first["left"], first["needed"], first["refuses"]) == (
            "key", 0, 1, 1, False,
        )  # fmt: skip
        assert (second["kind"], second["left"], second["model"]) == ("tokens", 1_000_000, "assistant")
        assert 0 < second["needed"] <= second["reserved"]
        assert 0 < first["resets_in_seconds"] <= first["window_seconds"]
        assert (third["kind"], third["limit"], third["period"]) == ("spend_nano_usd", 10**9, "month")
        assert (found["refused_by"], found["providers_used_up"]) == (None, [])
    answered = ask(gateway)
    assert answered.status_code == 200
    found = explained()
    assert (found["refused_by"], found["providers_used_up"]) == (f"the limit of key {KEY_ID}", ["upstream-a"])
    assert (found["limits"][0]["left"], found["limits"][0]["refuses"]) == (0, True)
    assert found["limits"][1]["used"] == answered.json()["usage"]["total_tokens"]
    assert ask(gateway).status_code == 429
    limited(replace_record(budget, limit=1))
    assert explained(max_tokens=100)["refused_by"] == "the budget of organization org_1"
