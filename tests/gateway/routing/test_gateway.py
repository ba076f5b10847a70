"""Choosing who answers, through a real gateway: models in turn, wishes in any protocol, explanations."""

from typing import Any

import httpx2
import pytest
from aiohttp import web

KEY = "sk-tw-test-key"
CHAT = {"model": "rescued", "messages": [{"role": "user", "content": "Hi"}]}
MESSAGES = {**CHAT, "max_tokens": 10}


def ask(gateway: Any, path: str = "/v1/chat/completions", /, **members: Any) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {KEY}", **members.pop("headers", {})}
    body = {**(MESSAGES if path == "/v1/messages" else CHAT), **members}
    return httpx2.post(gateway.url + path, headers=headers, json=body, timeout=20)


def refusing(status: int) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=status)

    return script


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_wishes_are_understood_in_any_protocol_and_never_reach_the_upstream(gateway: Any, path: str) -> None:
    answer = ask(gateway, path, provider={"only": ["upstream-a"], "sort": "price"}, models=["rescued"])
    assert answer.status_code == 200, answer.text
    assert (answer.headers["x-tokenworks-provider"], answer.headers["x-tokenworks-attempts"]) == ("upstream-a", "1")
    [seen] = gateway.upstream.seen
    assert not {"provider", "models"} & seen.body.keys()


def test_a_wish_that_leaves_nobody_says_why(gateway: Any) -> None:
    refused = ask(gateway, provider={"zdr": True})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("no_eligible_provider", "provider")
    assert "nobody states how long it keeps data" in error["message"]
    refused = ask(gateway, headers={"x-tokenworks-provider-only": "nobody"})
    assert refused.json()["error"]["code"] == "no_eligible_provider"
    assert not gateway.upstream.seen
    wrong = ask(gateway, provider={"sort": "cheap"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "provider.sort")


def test_models_are_tried_in_turn(gateway: Any) -> None:
    answer = ask(gateway, model="down", models=["unknown", "warming", "assistant"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-tokenworks-model"] == "model-1"
    assert answer.headers["x-tokenworks-attempts"] == "2"
    gateway.upstream.script = refusing(400)
    assert ask(gateway, model="assistant", models=["plain"]).status_code == 400
    assert len(gateway.upstream.seen) == 2, "a caller's error is not taken to another model"


def test_a_suffix_and_a_pin_are_no_part_of_the_name(gateway: Any) -> None:
    assert ask(gateway, model="assistant:floor").status_code == 200
    assert ask(gateway, model="upstream-a/assistant").status_code == 200
    unknown = ask(gateway, model="assistant:unknown")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


def test_an_explanation_asks_nobody(gateway: Any) -> None:
    answer = ask(gateway, "/v1/route:explain", provider={"ignore": ["upstream-z"]})
    assert answer.status_code == 200, answer.text
    [plan] = answer.json()["models"]
    assert plan["order"] == ["upstream-a/model-1"]
    chosen, barred = plan["candidates"]
    assert (chosen["provider"], chosen["eligible"], chosen["labels"]["region"]) == ("upstream-a", True, None)
    assert (barred["provider"], barred["eligible"], barred["reason"]) == ("upstream-z", False, "is to be ignored")
    assert float(plan["estimate"]["price_usd"]) > 0
    assert not gateway.upstream.seen
    messages = httpx2.post(
        f"{gateway.url}/v1/route:explain?path=/v1/messages",
        headers={"Authorization": f"Bearer {KEY}"},
        json={**MESSAGES, "models": ["nothing"]},
        timeout=20,
    )
    assert [each["model"] for each in messages.json()["models"]] == ["rescued", "nothing"]
    assert messages.json()["models"][1]["error"]["code"] == "model_not_found"
    wrong = httpx2.post(
        f"{gateway.url}/v1/route:explain?path=/nothing",
        headers={"Authorization": f"Bearer {KEY}"},
        json=CHAT,
        timeout=20,
    )
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "path")
