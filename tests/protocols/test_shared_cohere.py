"""Every real exchange of Cohere's second API, read where it lies: its answer becomes events, its request is what ours
would be."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tokenworks.core.errors import Fault, InvalidRequest
from tokenworks.core.events import Finished, ReasoningDelta, TextDelta, ToolCallDelta, UsageReport, Vector
from tokenworks.protocols import codec

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "recorded" / "cohere"
COHERE = codec("cohere")

pytestmark = pytest.mark.skipif(not RECORDED.exists(), reason=f"the recorded exchanges are not at {RECORDED}")


@cache
def exchanges(kind: str) -> dict[str, Any]:
    found = {path.name: json.loads(path.read_text()) for path in sorted(RECORDED.glob("*.json"))}
    return {name: each for name, each in found.items() if each["request"]["path"].endswith(kind)}


def test_every_chat_becomes_events() -> None:
    assert len(exchanges("chat")) >= 8
    for name, exchange in exchanges("chat").items():
        body = exchange["response"]["body"]
        events = COHERE.read_response(json.dumps(body).encode())
        content = body["message"].get("content") or []
        texts = "".join(block.get("text", "") for block in content)
        thoughts = (body["message"].get("tool_plan") or "") + "".join(block.get("thinking", "") for block in content)
        assert "".join(e.text for e in events if isinstance(e, TextDelta)) == texts, name
        assert "".join(e.text for e in events if isinstance(e, ReasoningDelta)) == thoughts
        calls = [(e.id, e.name, e.arguments) for e in events if isinstance(e, ToolCallDelta)]
        wanted = body["message"].get("tool_calls") or []
        assert calls == [(w["id"], w["function"]["name"], w["function"]["arguments"]) for w in wanted]
        (usage,) = [event.usage for event in events if isinstance(event, UsageReport)]
        assert (usage.input, usage.output) == tuple(body["usage"]["billed_units"].values())
        assert isinstance(events[-1], Finished)


def test_every_embedding_becomes_vectors() -> None:
    for exchange in exchanges("embed").values():
        response = exchange["response"]
        body = json.dumps(response["body"]).encode()
        if response["status"] != 200:
            error = COHERE.read_error(response["status"], body, provider="p", retry_after=None)
            assert error.fault is Fault.UNSUITABLE
            continue
        events = COHERE.read_response(body)
        vectors = [event.values for event in events if isinstance(event, Vector)]
        assert vectors == response["body"]["embeddings"]["float"]


def test_what_we_send_has_the_recorded_members() -> None:
    tool = {"type": "function", "function": {"name": "t", "description": "d", "parameters": {"type": "object"}}}
    call = {"id": "c1", "type": "function", "function": {"name": "t", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "U"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "R"},
    ]
    body = {"model": "m", "messages": messages, "tools": [tool], "tool_choice": "required", "stop": "x"}
    request = codec("openai_chat").decode_request(json.dumps(body).encode())
    sent = json.loads(COHERE.encode_request(request, "command", stream=False))
    members = {key for each in exchanges("chat").values() for key in each["request"]["body"]}
    assert sent.keys() <= members
    assert sent["messages"] == messages
    (recorded,) = [
        each for name, each in exchanges("chat").items() if each["request"]["body"]["messages"][-1]["role"] == "tool"
    ]
    shapes = [sorted(message) for message in recorded["request"]["body"]["messages"]]
    assert [sorted(message) for message in sent["messages"]] == shapes
    texts = codec("openai_embeddings").decode_request(b'{"model": "m", "input": ["a", "b"]}')
    embedded = json.loads(COHERE.encode_request(texts, "embed", stream=False))
    assert embedded.keys() <= {key for each in exchanges("embed").values() for key in each["request"]["body"]}


@pytest.mark.parametrize("member", ["n", "logit_bias", "parallel_tool_calls"])
def test_what_it_cannot_do_is_refused_by_name(member: str) -> None:
    values = {"n": 2, "logit_bias": {"5": 1}, "parallel_tool_calls": False}
    tool = {"type": "function", "function": {"name": "t"}}
    body = {"model": "m", "messages": [{"role": "user", "content": "U"}], "tools": [tool], member: values[member]}
    request = codec("openai_chat").decode_request(json.dumps(body).encode())
    with pytest.raises(InvalidRequest) as caught:
        COHERE.encode_request(request, "command", stream=False)
    assert caught.value.param == member
