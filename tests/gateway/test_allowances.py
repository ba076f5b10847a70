"""What is left of a caller's limits, in the headers of each family, and when to come back."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx2
import openai
import pytest

from tokenworks.snapshot.records import LimitRecord

KEY = "sk-tw-test-key"
KEY_ID = f"key_{hashlib.sha256(KEY.encode()).hexdigest()[:8]}"
DAY = 86_400


@pytest.fixture
def limited(gateway: Any) -> Iterator[Callable[..., None]]:
    plain = gateway.control._state

    def enforce(*limits: LimitRecord) -> None:
        gateway.control.publish(replace(plain, limits={limit.name: limit for limit in limits}))
        time.sleep(0.2)

    yield enforce
    enforce()


def limit(kind: str, amount: int, window: int = DAY, **members: Any) -> LimitRecord:
    return LimitRecord("key", KEY_ID, None, kind, amount, window, **members)


def ask(gateway: Any, path: str = "/v1/chat/completions", **members: Any) -> httpx2.Response:
    body = {"model": "assistant", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **members}
    return httpx2.post(f"{gateway.url}{path}", headers={"Authorization": f"Bearer {KEY}"}, json=body, timeout=20)


def test_every_family_tells_what_is_left(gateway: Any, limited: Any) -> None:
    limited(limit("requests", 100), limit("tokens", 10**6), limit("concurrency", 5, 0))
    told = [ask(gateway).headers, ask(gateway, stream=True).headers]
    assert [headers["x-ratelimit-remaining-requests"] for headers in told] == ["99", "98"]
    assert int(told[0]["x-ratelimit-remaining-tokens"]) < 10**6
    groq = ask(gateway, "/openai/v1/chat/completions").headers
    assert (groq["x-ratelimit-limit-requests"], groq["x-ratelimit-remaining-requests"]) == ("100", "97")
    fireworks = ask(gateway, "/inference/v1/chat/completions").headers
    assert fireworks["x-ratelimit-over-limit"] == "no"
    anthropic = ask(gateway, "/v1/messages").headers
    assert anthropic["anthropic-ratelimit-requests-remaining"] == "95"
    assert datetime.fromisoformat(anthropic["anthropic-ratelimit-requests-reset"]) > datetime.now(UTC)


def test_without_limits_nothing_is_told(gateway: Any) -> None:
    assert not [name for name in ask(gateway).headers if "ratelimit" in name]


def test_a_refusal_tells_it_too_and_when_to_come_back(gateway: Any, limited: Any) -> None:
    limited(limit("requests", 1, 10**7))
    assert ask(gateway).status_code == 200
    refused = ask(gateway)
    assert refused.status_code == 429
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
    anthropic = ask(gateway, "/v1/messages")
    assert anthropic.headers["anthropic-ratelimit-requests-remaining"] == "0"


def test_who_would_wait_in_vain_is_told_not_to_try_again(gateway: Any, limited: Any) -> None:
    limited(limit("requests", 1, 10**8))
    assert ask(gateway).status_code == 200
    refused = ask(gateway)
    assert "retry-after" not in refused.headers
    assert refused.headers["x-should-retry"] == "false"
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=2) as client,
        pytest.raises(openai.RateLimitError) as error,
    ):
        client.chat.completions.create(model="assistant", messages=[{"role": "user", "content": "Hi"}])
    assert error.value.request.headers["x-stainless-retry-count"] == "0"


def test_a_short_wait_is_told_to_the_millisecond_and_clients_keep_it(gateway: Any, limited: Any) -> None:
    limited(limit("requests", 1, 2))
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=5) as client:
        for _ in range(2):
            client.chat.completions.create(model="assistant", messages=[{"role": "user", "content": "Hi"}])
    refused = next(reply for reply in iter(lambda: ask(gateway), None) if reply.status_code == 429)
    assert int(refused.headers["retry-after-ms"]) <= 2000
    assert refused.headers["retry-after"] in ("1", "2")


def test_a_budget_that_is_used_up_is_told_in_each_familys_way(gateway: Any, limited: Any) -> None:
    limited(LimitRecord("key", KEY_ID, None, "spend_nano_usd", 1, period="total"))
    paths = ("/v1/chat/completions", "/v1/messages", "/inference/v1/chat/completions")
    told = {path: ask(gateway, path) for path in paths}
    assert [reply.status_code for reply in told.values()] == [429, 402, 402]
    assert all(reply.headers["x-should-retry"] == "false" for reply in told.values())
    assert told["/v1/chat/completions"].json()["error"]["type"] == "insufficient_quota"
    assert told["/v1/messages"].json()["error"]["type"] == "billing_error"
