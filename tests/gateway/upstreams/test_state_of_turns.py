"""What providers want back of earlier turns, or refuse to get back, whatever protocol its caller speaks: an agent's two
turns, as the provider's first answer and what then reaches it."""

import json
from typing import Any

import pytest
from openai._models import construct_type
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from tokenworks.core.request import Request
from tokenworks.gateway.upstreams.parameters import without_effect
from tokenworks.gateway.upstreams.prepare import Prepared, prepare
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation
from tokenworks.snapshot.records import UpstreamRecord

SIGNATURE = "AVSoXO4/lu90+Bn7IxVc=="
CALL = {
    "id": "function-call-1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "x"}'},
    "extra_content": {"google": {"thought_signature": SIGNATURE}},
}
OTHER = {"id": "function-call-2", "type": "function", "function": {"name": "now", "arguments": "{}"}}
TOOLS = ["weather", "now"]


def upstream(*quirks: str, protocol: str = "openai_chat") -> UpstreamRecord:
    return UpstreamRecord("up", "up", (protocol,), "http://127.0.0.1:9/v1", quirks=quirks)


def prepared(caller: str, body: dict[str, Any], record: UpstreamRecord) -> tuple[Request, Prepared]:
    request = codec(caller).decode_request(json.dumps(body).encode())
    return request, prepare(codec(caller), request, record, "m", Observation(), (codec(caller).response_id("1"), 1))


def answer() -> bytes:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL, OTHER]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return json.dumps(
        {"id": "a", "object": "chat.completion", "created": 1, "model": "g", "choices": [choice]}
    ).encode()


def stream() -> bytes:
    head = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "g"}
    deltas: list[Any] = [{"tool_calls": [{"index": at, **call}]} for at, call in enumerate((CALL, OTHER))]
    choices: list[Any] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "tool_calls"})
    return b"".join(b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n" for choice in choices)


def messages_turn(answered: bytes) -> dict[str, Any]:
    blocks = json.loads(answered)["content"]
    results = [{"type": "tool_result", "tool_use_id": block["id"], "content": "ok"} for block in blocks]
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": blocks}]
    return {**MESSAGES, "messages": [*turns, {"role": "user", "content": results}]}


def responses_turn(answered: bytes) -> dict[str, Any]:
    items = json.loads(answered)["output"]
    results = [{"type": "function_call_output", "call_id": item["call_id"], "output": "ok"} for item in items]
    return {**RESPONSES, "input": [{"role": "user", "content": "x"}, *items, *results]}


MESSAGES: dict[str, Any] = {
    "model": "m",
    "max_tokens": 99,
    "tools": [{"name": name, "input_schema": {"type": "object"}} for name in TOOLS],
    "messages": [{"role": "user", "content": "x"}],
}
RESPONSES: dict[str, Any] = {
    "model": "m",
    "tools": [{"type": "function", "name": name, "parameters": {}} for name in TOOLS],
    "input": "x",
}
CALLERS = {"anthropic_messages": (MESSAGES, messages_turn), "openai_responses": (RESPONSES, responses_turn)}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_signed_call_comes_back_with_its_signature(caller: str, streamed: bool) -> None:
    asked, turn = CALLERS[caller]
    if streamed:
        request, first = prepared(caller, {**asked, "stream": True}, upstream("signs_calls"))
        reader = codec(caller).stream_reader()
        events = reader.feed(first.relay.feed(stream()) + first.relay.close())
        answered = codec(caller).encode_response(request, events, "id_1", 1)
    else:
        answered = prepared(caller, asked, upstream("signs_calls"))[1].relay.whole(answer())
    _, second = prepared(caller, turn(answered), upstream("signs_calls"))
    sent = json.loads(second.body)["messages"]
    calls, results = sent[1]["tool_calls"], sent[2:]
    assert calls == [CALL, OTHER]
    assert [result["tool_call_id"] for result in results] == [CALL["id"], OTHER["id"]]


@pytest.mark.parametrize("caller", CALLERS)
def test_another_provider_gets_the_call_without_what_it_cannot_read(caller: str) -> None:
    asked, turn = CALLERS[caller]
    answered = prepared(caller, asked, upstream("signs_calls"))[1].relay.whole(answer())
    plain = {name: value for name, value in CALL.items() if name != "extra_content"}
    chat = json.loads(prepared(caller, turn(answered), upstream())[1].body)
    assert chat["messages"][1]["tool_calls"] == [plain, OTHER]
    items = json.loads(prepared(caller, turn(answered), upstream(protocol="openai_responses"))[1].body)["input"]
    assert [item["call_id"] for item in items if "call_id" in item] == [CALL["id"], OTHER["id"]] * 2


def test_an_id_that_only_looks_signed_passes() -> None:
    call = {**OTHER, "id": "a__signed__%"}
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    body = {"model": "m", "messages": [*turns, {"role": "tool", "tool_call_id": call["id"], "content": "__signed__"}]}
    sent = json.loads(prepared("openai_chat", body, upstream("signs_calls"))[1].body)["messages"]
    assert [sent[1]["tool_calls"][0]["id"], sent[2]["tool_call_id"], sent[2]["content"]] == ["a", "a", "__signed__"]


USER = {"role": "user", "content": "x"}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": ""}
BLOCKS = [THOUGHT, {"type": "text", "text": "y"}]
SAID = {"role": "assistant", "content": "y", "reasoning": "hm", "reasoning_content": "hm"}


@pytest.mark.parametrize(
    ("caller", "body"),
    [
        ("anthropic_messages", {**MESSAGES, "messages": [USER, {"role": "assistant", "content": BLOCKS}, USER]}),
        ("openai_chat", {"model": "m", "messages": [USER, SAID, USER]}),
    ],
)
def test_reasoning_does_not_go_back_to_who_refuses_it_and_that_is_reported(caller: str, body: dict[str, Any]) -> None:
    for quirks, told in (((), True), (("no_reasoning_back",), False)):
        request, second = prepared(caller, body, upstream(*quirks))
        message = json.loads(second.body)["messages"][1]
        assert message["content"] == "y"
        assert ("reasoning_content" in message) is told and (told or "reasoning" not in message)
        lost = without_effect(request, upstream(*quirks), second)
        assert ("messages.reasoning_content" in lost) is not told


THINKING = {"type": "thinking", "thinking": "hm, hm", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "ZGF0YQ"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "x"}}
CHAT: dict[str, Any] = {
    "model": "m",
    "max_tokens": 99,
    "tools": [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in TOOLS],
    "messages": [USER],
}


def said_by_claude(*blocks: dict[str, Any]) -> bytes:
    body = {"id": "msg_1", "model": "c", "content": blocks, "stop_reason": "tool_use", "stop_sequence": None}
    return json.dumps({"type": "message", "role": "assistant", **body, "usage": {"input_tokens": 1}}).encode()


def chat_answer(record: UpstreamRecord, answered: bytes, *, streamed: bool) -> dict[str, Any]:
    """The message that a client of chat completions has afterwards, and sends back."""
    _, first = prepared("openai_chat", {**CHAT, "stream": streamed}, record)
    if not streamed:
        message: dict[str, Any] = json.loads(first.relay.whole(answered))["choices"][0]["message"]
        return message
    spoken = codec(record.protocols[0])
    asked = spoken.decode_request(first.body)
    writer = spoken.stream_writer(asked, "id_1", 1)
    events = spoken.read_response(answered)
    written = b"".join([writer.feed(event) for event in events]) + writer.close()
    return joined(first.relay.feed(written) + first.relay.close())


def joined(stream: bytes) -> dict[str, Any]:
    """As the official client puts a message together."""
    state: Any = ChatCompletionStreamState()
    for block in stream.split(b"\n\n"):
        if block.startswith(b"data: {"):
            chunk = construct_type(type_=ChatCompletionChunk, value=json.loads(block[6:]))
            list(state.handle_chunk(chunk))
    message: dict[str, Any] = state.current_completion_snapshot.choices[0].message.to_dict()
    return message


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("thoughts", [[THINKING], [THINKING, REDACTED], [REDACTED]])
def test_a_chat_client_gives_claude_its_thoughts_back(streamed: bool, thoughts: list[Any]) -> None:
    claude = upstream(protocol="anthropic_messages")
    message = chat_answer(claude, said_by_claude(*thoughts, USE), streamed=streamed)
    assert message.get("reasoning_content") == (THINKING["thinking"] if THINKING in thoughts else None)
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in message["tool_calls"]]
    request, second = prepared("openai_chat", {**CHAT, "messages": [USER, message, *results]}, claude)
    assert json.loads(second.body)["messages"][1]["content"] == [*thoughts, USE]
    assert without_effect(request, claude, second) == []
    elsewhere = upstream()
    _, passed = prepared("openai_chat", {**CHAT, "messages": [USER, message, *results]}, elsewhere)
    assert json.loads(passed.body)["messages"][1] == message, "the same protocol passes it on"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_chat_client_gives_encrypted_reasoning_back(streamed: bool) -> None:
    thought = {"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA"}
    summary = [{"type": "summary_text", "text": "It thinks."}]
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": "{}"}
    body = {"id": "resp_1", "model": "o", "status": "completed", "output": [{**thought, "summary": summary}, call]}
    record = upstream(protocol="openai_responses")
    message = chat_answer(record, json.dumps(body).encode(), streamed=streamed)
    results = [{"role": "tool", "tool_call_id": call["call_id"], "content": "ok"}]
    request, second = prepared("openai_chat", {**CHAT, "messages": [USER, message, *results]}, record)
    sent = json.loads(second.body)["input"][1]
    assert sent == {"type": "reasoning", "summary": summary, "encrypted_content": "gAAA"}
    assert without_effect(request, record, second) == []


def test_a_client_of_messages_gives_encrypted_reasoning_back_with_its_summary() -> None:
    summary = [{"type": "summary_text", "text": "It thinks."}]
    thought = {"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA", "summary": summary}
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "y"}]}
    body = {"id": "resp_1", "model": "o", "status": "completed", "output": [thought, said]}
    record = upstream(protocol="openai_responses")
    first = prepared("anthropic_messages", MESSAGES, record)[1]
    blocks = json.loads(first.relay.whole(json.dumps(body).encode()))["content"]
    assert [block["type"] for block in blocks] == ["thinking", "redacted_thinking", "text"]
    turns = [USER, {"role": "assistant", "content": blocks}, USER]
    request, second = prepared("anthropic_messages", {**MESSAGES, "messages": turns}, record)
    assert json.loads(second.body)["input"][1] == {
        "type": "reasoning",
        "summary": summary,
        "encrypted_content": "gAAA",
    }
    assert without_effect(request, record, second) == []


def test_nobody_gets_what_another_encrypted() -> None:
    """A conversation that goes on with another provider: each would refuse it, and its own gets it back."""
    claude, openai = upstream(protocol="anthropic_messages"), upstream(protocol="openai_responses")
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "y"}]}
    item = {"type": "reasoning", "id": "rs_1", "encrypted_content": "gAAA", "summary": []}
    body = {"id": "resp_1", "model": "o", "status": "completed", "output": [item, said]}
    of_openai = prepared("anthropic_messages", MESSAGES, openai)[1].relay.whole(json.dumps(body).encode())
    blocks = json.loads(of_openai)["content"]
    turns = {**MESSAGES, "messages": [USER, {"role": "assistant", "content": blocks}, USER]}
    assert json.loads(prepared("anthropic_messages", turns, claude)[1].body)["messages"][1]["content"] == [
        {"type": "text", "text": "y"}
    ]
    assert b'"encrypted_content":"gAAA"' in prepared("anthropic_messages", turns, openai)[1].body
    of_claude = prepared("openai_responses", RESPONSES, claude)[1].relay.whole(said_by_claude(REDACTED, USE))
    items = [USER, *json.loads(of_claude)["output"]]
    items.append({"type": "function_call_output", "call_id": "toolu_1", "output": "ok"})
    sent = json.loads(prepared("openai_responses", {**RESPONSES, "input": items}, openai)[1].body)["input"]
    assert [item["type"] for item in sent] == ["message", "function_call", "function_call_output"]
    content = json.loads(prepared("openai_responses", {**RESPONSES, "input": items}, claude)[1].body)["messages"][1]
    assert content["content"] == [REDACTED, USE]


def test_who_takes_proofs_in_a_member_of_chat_gets_them_and_others_do_not() -> None:
    """OpenRouter's Claude behind a client of Messages: its thought comes signed, and goes back so."""
    details = [{"type": "reasoning.text", "text": "hm, hm", "signature": "c2ln", "format": "x", "index": 0}]
    said = {"role": "assistant", "content": "y", "reasoning": "hm, hm", "reasoning_details": details}
    answered = json.dumps({"id": "a", "choices": [{"index": 0, "message": said, "finish_reason": "stop"}]}).encode()
    blocks = json.loads(prepared("anthropic_messages", MESSAGES, upstream())[1].relay.whole(answered))["content"]
    assert blocks == [THINKING, {"type": "text", "text": "y"}]
    body = {**MESSAGES, "messages": [USER, {"role": "assistant", "content": blocks}, USER]}
    for quirks, lost in ((("reasoning_details",), []), ((), ["signature"])):
        request, second = prepared("anthropic_messages", body, upstream(*quirks))
        sent = json.loads(second.body)["messages"][1]
        assert ("reasoning_details" in sent) is bool(quirks)
        assert without_effect(request, upstream(*quirks), second) == lost
        if quirks:
            [told] = sent["reasoning_details"]
            assert (told["text"], told["signature"]) == ("hm, hm", "c2ln")
