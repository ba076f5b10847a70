"""Limits and budgets through a real gateway: what is refused, with which words, and what is given back."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from aiohttp import web

from tokenworks.snapshot.records import LimitRecord

KEY = "sk-tw-test-key"
KEY_ID = f"key_{hashlib.sha256(KEY.encode()).hexdigest()[:8]}"
DAY = 86_400


@pytest.fixture
def limited(gateway: Any) -> Iterator[Callable[..., None]]:
    """`limited(LimitRecord, ...)` puts limits in force; afterwards there are none."""
    plain = gateway.control._state

    def enforce(*limits: LimitRecord) -> None:
        gateway.control.publish(replace(plain, limits={limit.name: limit for limit in limits}))
        time.sleep(0.2)

    yield enforce
    enforce()


def ask(gateway: Any, **members: Any) -> httpx2.Response:
    body = {"model": "assistant", "messages": [{"role": "user", "content": "Hi"}], **members}
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx2.post(f"{gateway.url}/v1/chat/completions", headers=headers, json=body, timeout=20)


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
