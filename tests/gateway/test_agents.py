"""Coding agents' traffic: the official `anthropic` client with tools, thinking and a long system prompt, through a real
gateway, onto hosts of chat completions that answer what real ones answered (read where it lies, never copied).

Every tool's argument arrives, as the host wrote it; the message ends with `tool_use`; the agent's next turn says to the
host what it said before.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import anthropic
import pytest
from aiohttp import web
from anthropic import Anthropic

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "recorded"
KEY = "sk-tw-test-key"
SYSTEM: list[Any] = [
    {"type": "text", "text": "You are a careful agent. " * 800},
    {"type": "text", "text": "Files:\n" + "src/a.py\n" * 500, "cache_control": {"type": "ephemeral", "ttl": "1h"}},
]
GO: list[Any] = [{"role": "user", "content": "Go"}]
STEP = 61
"""Bytes of a stream that the host sends at once."""

pytestmark = pytest.mark.skipif(not RECORDED.exists(), reason=f"the recorded exchanges are not at {RECORDED}")


@cache
def answers(kind: type) -> list[tuple[str, Any]]:
    """Complete answers of many hosts in which tools are called."""
    found = []
    for path in sorted(RECORDED.glob("*/*-chat-completions*called*.json")):
        exchange = json.loads(path.read_text())
        body = exchange["response"]["body"]
        broken = exchange["response"]["status"] != 200 or (isinstance(body, str) and '"error"' in body)
        if isinstance(body, kind) and not broken and called(body):
            found.append((f"{path.parent.name}/{path.name}", body))
    return found


def called(body: Any) -> list[tuple[str, str]]:
    """(name, arguments) of the calls in an answer, whole or streamed, read as plainly as can be."""
    if isinstance(body, dict):
        calls = body["choices"][0]["message"].get("tool_calls") or []
        return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
    found: dict[int, list[str]] = {}
    for line in body.splitlines():
        if line.startswith("data:") and "[DONE]" not in line:
            for choice in json.loads(line[5:]).get("choices") or []:
                for position, call in enumerate(choice["delta"].get("tool_calls") or []):
                    name, arguments = call["function"].get("name"), call["function"].get("arguments") or ""
                    entry = found.setdefault(call.get("index", position), ["", ""])
                    entry[0], entry[1] = entry[0] or name or "", entry[1] + arguments
    return [(name, arguments) for _, (name, arguments) in sorted(found.items())]


def saying(body: Any) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        if isinstance(body, dict):
            return web.json_response(body)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        raw = body.encode()
        for at in range(0, len(raw), STEP):
            await response.write(raw[at : at + STEP])
        return response

    return script


def asked(names: set[str], messages: list[Any]) -> dict[str, Any]:
    return {
        "model": "assistant",
        "max_tokens": 8000,
        "system": SYSTEM,
        "thinking": {"type": "enabled", "budget_tokens": 4000},
        "tools": [{"name": name, "input_schema": {"type": "object"}} for name in sorted(names)],
        "messages": messages,
    }


@pytest.fixture
def client(gateway: Any) -> Iterator[Anthropic]:
    with Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0, timeout=20) as client:
        yield client


def check(message: anthropic.types.Message, calls: list[tuple[str, str]], name: str) -> None:
    told = [(block.name, block.input) for block in message.content if block.type == "tool_use"]
    assert told == [(called_name, json.loads(text or "{}")) for called_name, text in calls], name
    assert message.stop_reason == "tool_use", name


def test_there_is_something_to_say() -> None:
    assert len(answers(str)) >= 9 and len(answers(dict)) > 60


def test_a_stream_keeps_every_argument(client: Anthropic, gateway: Any) -> None:
    for name, body in answers(str):
        gateway.upstream.script = saying(body)
        calls = called(body)
        with client.messages.stream(
            **asked({each for each, _ in calls}, [{"role": "user", "content": "Go"}])
        ) as stream:
            pieces = "".join(event.partial_json for event in stream if event.type == "input_json")
            check(stream.get_final_message(), calls, name)
        assert pieces == "".join(text for _, text in calls), f"{name}: not to the byte"


def test_the_next_turn_says_what_the_model_said(client: Anthropic, gateway: Any) -> None:
    """The agent sends back what it got, with the results: the host sees its own calls again, as values and ids."""
    for name, body in answers(dict)[::4]:
        gateway.upstream.script = saying(body)
        calls = called(body)
        names = {each for each, _ in calls}
        first = client.messages.create(**asked(names, GO))
        check(first, calls, name)
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": "ok"}
            for block in first.content
            if block.type == "tool_use"
        ]
        turns = [
            *GO,
            {"role": "assistant", "content": [block.to_dict() for block in first.content]},
            {"role": "user", "content": results},
        ]
        client.messages.create(**asked(names, turns))
        sent = gateway.upstream.seen[-1].body["messages"]
        assert [message["role"] for message in sent][:3] == ["system", "user", "assistant"], name
        again = [
            (call["function"]["name"], json.loads(call["function"]["arguments"])) for call in sent[2]["tool_calls"]
        ]
        assert again == [(each, json.loads(text or "{}")) for each, text in calls], name
        assert [message["tool_call_id"] for message in sent[3:]] == [call["id"] for call in sent[2]["tool_calls"]], name
