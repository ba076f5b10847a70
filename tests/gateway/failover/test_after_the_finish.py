"""An upstream that is lost once everything was said: the answer is whole, and what it took is our own count."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx2
import msgspec
import pytest
from aiohttp import web
from anthropic import Anthropic
from openai import OpenAI
from tests.gateway.conftest import KEY, USAGE, chunk, stream, wait_for

from tokenworks.snapshot.records import PolicyRecord, TargetRecord

SAID = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hello"}), chunk({"content": " there"})]
FINISH = chunk({}, finish="stop")
HI: list[Any] = [{"role": "user", "content": "Hi"}]


def losing(how: str, pieces: list[bytes]) -> Any:
    """All of these, and then it is lost in one of several ways; no usage, no terminator."""

    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        response = await stream(request, pieces, pause=0.01)
        if how == "garbled":
            await response.write(b"data: {nonsense\n\n")
            await asyncio.sleep(5)
        elif how == "silent":
            await asyncio.sleep(5)
        elif how == "half":
            await response.write(chunk(usage=USAGE)[:40])
        assert request.transport is not None
        request.transport.close()
        return response

    return script


@pytest.fixture
def finished(gateway: Any) -> Any:
    """`both`: with a second target that would answer anything; nobody should ask it."""
    state = gateway.control._state
    model = state.models["assistant"]
    policy = PolicyRecord(hedge=0, breaker=0)
    both = msgspec.structs.replace(
        model, name="both", policy=policy, targets=(*model.targets, TargetRecord("upstream-m", "claude-up"))
    )
    models = {**state.models, "both": both}
    gateway.control.publish(replace(state, revision=state.revision + 1, models=models))
    wait_for(lambda: post(gateway, "/v1/route:explain", model="both").status_code == 200)
    gateway.upstream.seen.clear()
    return gateway


def post(gateway: Any, path: str = "/v1/chat/completions", **members: Any) -> httpx2.Response:
    body = {"model": "both", "messages": HI, **members}
    return httpx2.post(f"{gateway.url}{path}", headers={"Authorization": f"Bearer {KEY}"}, json=body, timeout=20)


@pytest.mark.parametrize("how", ["cut", "silent", "garbled", "half"])
def test_a_stream_is_complete_and_its_usage_our_count(finished: Any, how: str) -> None:
    finished.upstream.script = losing(how, [*SAID, FINISH])
    told = post(finished, stream=True, stream_options={"include_usage": True})
    blocks = told.text.split("\n\n")
    chunks = [json.loads(block[6:]) for block in blocks if block.startswith("data: {")]
    assert (
        "".join(each["choices"][0]["delta"].get("content", "") for each in chunks if each["choices"]) == "Hello there"
    )
    assert [each["choices"][0]["finish_reason"] for each in chunks if each["choices"]][-1] == "stop"
    assert blocks[-2] == "data: [DONE]"
    assert any(block.startswith(": the upstream was lost after its last word (") for block in blocks)
    settled = finished.control.settled(told.headers["x-request-id"])
    assert (settled.outcome, settled.finish_reason, settled.estimated, settled.usage.output) == (
        "completed", "stop", True, 2
    )  # fmt: skip
    assert settled.error == ("idle_timeout" if how == "silent" else "upstream_broken")
    assert settled.charge == settled.usage.input * 150 + 2 * 600
    usage = chunks[-1]["usage"]
    assert (usage["completion_tokens"], usage["prompt_tokens"], usage["cost_nano_usd"]) == (
        2, settled.usage.input, settled.charge
    )  # fmt: skip
    assert {each["id"] for each in chunks} == {"chatcmpl-up"}
    assert len(finished.upstream.seen) == 1, "nobody else was asked"


def test_what_was_reported_stands(finished: Any) -> None:
    finished.upstream.script = losing("cut", [*SAID, FINISH, chunk(usage=USAGE)])
    told = post(finished, stream=True)
    settled = finished.control.settled(told.headers["x-request-id"])
    assert (settled.estimated, settled.usage.output, settled.error) == (False, 3, "upstream_broken")
    assert told.text.endswith("data: [DONE]\n\n")
    assert "usage" not in told.text


def test_a_whole_answer_says_so_in_its_head(finished: Any) -> None:
    finished.upstream.script = losing("cut", [*SAID, FINISH])
    told = post(finished)
    assert told.json()["choices"][0]["message"]["content"] == "Hello there"
    assert told.json()["usage"]["completion_tokens"] == 2
    assert (told.headers["x-tokenworks-lost"], told.headers["x-tokenworks-attempts"]) == ("upstream_broken", "1")


def test_a_choice_without_its_finish_is_no_whole_answer(finished: Any) -> None:
    finished.upstream.script = losing("cut", [*SAID, FINISH])
    told = post(finished, model="assistant", stream=True, n=2)
    assert "[DONE]" not in told.text
    assert '"code":"upstream_broken"' in told.text


def test_official_clients_take_it_for_the_whole_it_is(finished: Any) -> None:
    finished.upstream.script = losing("cut", [*SAID, FINISH])
    with (
        OpenAI(base_url=f"{finished.url}/v1", api_key=KEY, max_retries=0) as chat,
        Anthropic(base_url=finished.url, api_key=KEY, max_retries=0) as messages,
    ):
        with chat.chat.completions.create(model="both", messages=HI, stream=True) as pieces:
            assert [each.choices[0].finish_reason for each in pieces if each.choices][-1] == "stop"
        with messages.messages.stream(model="both", max_tokens=9, messages=HI) as running:
            message = running.get_final_message()
        assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 2)
        assert running.get_final_text() == "Hello there"


def event(kind: str, **members: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


MESSAGES = [
    event("message_start", message={"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-up",
          "content": [], "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 7, "output_tokens": 1}}),
    event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello there"}),
    event("content_block_stop", index=0),
    event("message_delta", delta={"stop_reason": "max_tokens", "stop_sequence": None}, usage={"output_tokens": 4}),
]  # fmt: skip


def test_messages_are_over_with_their_reason(finished: Any) -> None:
    finished.upstream.script = losing("cut", MESSAGES)
    with Anthropic(base_url=finished.url, api_key=KEY, max_retries=0) as messages:
        with messages.messages.stream(model="claude", max_tokens=9, messages=HI) as running:
            message = running.get_final_message()
        assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 4)
    told = post(finished, model="claude", stream=True)
    assert told.text.endswith("data: [DONE]\n\n")
    settled = finished.control.settled(told.headers["x-request-id"])
    assert (settled.finish_reason, settled.usage.output, settled.estimated) == ("length", 4, False)
