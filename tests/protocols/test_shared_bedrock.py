"""Every real exchange of Converse, read where it lies and never copied: its answer becomes events, whole and cut
anywhere, and what we would send has nothing in it that was not seen accepted."""

import base64
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tokenworks.core.errors import Fault, InvalidRequest, UpstreamBroken
from tokenworks.core.events import Event, Finished, ReasoningDelta, Started, TextDelta, ToolCallDelta, UsageReport
from tokenworks.core.request import Request
from tokenworks.protocols import codec

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "recorded" / "bedrock"
CONVERSE = codec("bedrock_converse")
DOCUMENTED = {
    "inferenceConfig.stopSequences[]",
    "additionalModelRequestFields.reasoningConfig.type",
    "additionalModelRequestFields.reasoningConfig.maxReasoningEffort",
    "messages[].content[].image.source.bytes",
    "messages[].content[].reasoningContent.redactedContent",
    "requestMetadata.team",
}
"""Of the reference, and in no recording."""

pytestmark = pytest.mark.skipif(not RECORDED.exists(), reason=f"the recorded exchanges are not at {RECORDED}")


@cache
def exchanges() -> dict[str, Any]:
    found = {path.name: json.loads(path.read_text()) for path in sorted(RECORDED.glob("*converse*.json"))}
    return {name: each for name, each in found.items() if isinstance(each["request"]["body"], dict)}


def read(pieces: list[bytes]) -> list[Event]:
    reader = CONVERSE.stream_reader()
    return [event for piece in pieces for event in reader.feed(piece)] + reader.close()


def streams() -> dict[str, bytes]:
    bodies = {name: each["response"]["body"] for name, each in exchanges().items()}
    return {name: base64.b64decode(body["base64"]) for name, body in bodies.items() if "base64" in body}


def test_every_whole_answer_becomes_events() -> None:
    count = 0
    for name, exchange in exchanges().items():
        body = exchange["response"]["body"]
        if exchange["response"]["status"] != 200 or "base64" in body:
            continue
        events = CONVERSE.read_response(json.dumps(body).encode())
        blocks = body["output"]["message"]["content"]
        assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "".join(b.get("text", "") for b in blocks)
        calls = [event for event in events if isinstance(event, ToolCallDelta)]
        wanted = [block["toolUse"] for block in blocks if "toolUse" in block]
        assert [(c.id, c.name, json.loads(c.arguments)) for c in calls] == [
            (w["toolUseId"], w["name"], w["input"]) for w in wanted
        ], name
        thoughts = [block["reasoningContent"]["reasoningText"] for block in blocks if "reasoningContent" in block]
        told = [event for event in events if isinstance(event, ReasoningDelta)]
        assert [(t.text, t.signature) for t in told] == [(t["text"], t.get("signature")) for t in thoughts]
        (usage,) = [event.usage for event in events if isinstance(event, UsageReport)]
        assert usage.total == body["usage"]["totalTokens"], name
        assert isinstance(events[0], Started) and isinstance(events[-1], Finished)
        count += 1
    assert count > 100


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 20])
def test_every_stream_says_the_same_in_any_pieces(size: int) -> None:
    assert len(streams()) >= 7
    for name, raw in streams().items():
        events = read([raw[at : at + size] for at in range(0, len(raw), size)])
        assert isinstance(events[-1], Finished), name
        assert events == read([raw])
        assert any(isinstance(event, UsageReport) and event.usage.output for event in events)
        for call in {event.call for event in events if isinstance(event, ToolCallDelta)}:
            json.loads("".join(e.arguments for e in events if isinstance(e, ToolCallDelta) and e.call == call))


def test_a_stream_that_is_cut_never_looks_complete() -> None:
    """Cut before the finish it has none; cut inside a message it says so."""
    for raw in streams().values():
        for cut in range(0, len(raw) - 1, 97):
            try:
                events = read([raw[:cut]])
            except UpstreamBroken:
                continue
            if any(isinstance(event, Finished) for event in events):  # only the count of tokens is missing
                assert raw[cut:].count(b"metadata") == 1


def test_a_damaged_stream_is_garbled_not_believed() -> None:
    for raw in streams().values():
        for at in range(0, len(raw), 61):
            damaged = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
            with pytest.raises(UpstreamBroken):
                read([damaged])


def test_every_error_is_of_its_kind() -> None:
    kinds = {}
    for name, exchange in exchanges().items():
        response = exchange["response"]
        if response["status"] != 200:
            body = json.dumps(response["body"]).encode()
            error = CONVERSE.read_error(response["status"], body, provider="p", retry_after=None)
            kinds[name] = error.fault
    assert len(kinds) >= 8
    unknown = {name for name, fault in kinds.items() if fault is Fault.UNSUITABLE}
    assert len(unknown) == 3
    assert {fault for name, fault in kinds.items() if name not in unknown} == {Fault.CALLER}


def paths(value: Any, at: str = "") -> Iterator[str]:
    """Every place in a body, by the names on the way; what is the caller's own (schemas, arguments) is one place."""
    if at.endswith(("inputSchema.json", "toolUse.input")) or not isinstance(value, dict | list) or not value:
        yield at
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, f"{at}.{key}" if at else key)
    else:
        for inner in value:
            yield from paths(inner, f"{at}[]")


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
TOOL = {"type": "function", "function": {"name": "t", "description": "d", "parameters": {"type": "object"}}}
CALL = {"id": "call/1", "type": "function", "function": {"name": "t", "arguments": '{"a": 1}'}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "description": "d"}}
MESSAGES = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": [{"type": "text", "text": "U"}, IMAGE]},
    {"role": "assistant", "content": "A", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call/1", "content": "R"},
    {"role": "user", "content": "again"},
]


def converse(model: str = "us.anthropic.claude-sonnet-4-5", **members: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "m", "messages": MESSAGES, "tools": [TOOL], **members}
    encoded: dict[str, Any] = json.loads(CONVERSE.encode_request(decoded(body), model, stream=False))
    return encoded


def decoded(body: dict[str, Any]) -> Request:
    return codec("openai_chat").decode_request(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("model", "members"),
    [
        (
            "us.anthropic.claude-sonnet-4-5",
            {"temperature": 0.5, "top_p": 0.5, "top_k": 5, "max_tokens": 9, "stop": "x"},
        ),
        ("us.anthropic.claude-sonnet-4-5", {"tool_choice": "required", "reasoning_effort": "low"}),
        ("eu.amazon.nova-lite-v1:0", {"tool_choice": {"type": "function", "function": {"name": "t"}}}),
        ("eu.amazon.nova-2-lite-v1:0", {"reasoning_effort": "low", "tool_choice": "auto"}),
        ("openai.gpt-oss-120b-1:0", {"reasoning_effort": "high", "response_format": FORMAT}),
        ("openai.gpt-oss-120b-1:0", {"service_tier": "flex", "metadata": {"team": "blue"}}),
    ],
)
def test_what_we_send_was_seen_accepted(model: str, members: dict[str, Any]) -> None:
    seen = {path for each in exchanges().values() for path in paths(each["request"]["body"])} | DOCUMENTED
    assert set(paths(converse(model, **members))) <= seen


def test_turns_alternate_and_results_follow_their_calls() -> None:
    sent = converse()
    assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]
    (_, call), (result, again) = sent["messages"][1]["content"], sent["messages"][2]["content"]
    assert call["toolUse"] == {"toolUseId": "call_1", "name": "t", "input": {"a": 1}}
    assert result["toolResult"]["toolUseId"] == "call_1"
    assert again == {"text": "again"}
    assert sent["system"] == [{"text": "S"}]


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"seed": 3}, "seed"),
        ({"tool_choice": "none"}, "tool_choice"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(members: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        converse(**members)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("status", "message", "fault"),
    [
        (400, "Input is too long for requested model.", Fault.CONTEXT_LENGTH),
        (400, "The content was blocked by a guardrail.", Fault.CONTENT_POLICY),
        (403, "The security token included in the request is invalid.", Fault.CREDENTIAL),
        (403, "You don't have access to the model with the specified model ID.", Fault.UNSUITABLE),
        (429, "Too many requests, please wait before trying again.", Fault.RATE_LIMIT),
        (429, "Model is not ready for inference. Wait and try your request again.", Fault.OVERLOAD),
        (408, "Model processing timeout", Fault.SILENT),
        (424, "The system encountered an unexpected error during processing.", Fault.BROKEN),
        (503, "Bedrock is unable to process your request.", Fault.OVERLOAD),
    ],
)
def test_documented_errors(status: int, message: str, fault: Fault) -> None:
    body = json.dumps({"message": message}).encode()
    assert CONVERSE.read_error(status, body, provider="p", retry_after=None).fault is fault
