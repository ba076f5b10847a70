"""Messages: what only this protocol has. The specimens' tests (test_recorded.py) cover reading them in any pieces."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.core.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    LimitReached,
    TokenworksError,
    Unauthenticated,
    UpstreamBroken,
    UpstreamOverloaded,
    UpstreamRejected,
    UpstreamTimeout,
)
from tokenworks.core.events import (
    Event,
    Failed,
    Finished,
    FinishReason,
    Paused,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReport,
    WindowFull,
)
from tokenworks.core.messages import Message, Role, Text, Thinking, ToolCall, ToolResult
from tokenworks.core.request import Conversation, Request
from tokenworks.core.usage import Usage
from tokenworks.protocols import codec
from tokenworks.protocols.anthropic_messages.models import Model, encode_models
from tokenworks.protocols.anthropic_messages.versions import read_headers, upstream_headers
from tokenworks.protocols.base import Observation

MESSAGES = codec("anthropic_messages")
CHAT = codec("openai_chat")
ASK = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}


def decoded(**members: Any) -> Request:
    return MESSAGES.decode_request(json.dumps({**ASK, **members}).encode())


def refusal_of(**members: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        decoded(**members)
    return refused.value


def written(events: list[Event]) -> bytes:
    writer = MESSAGES.stream_writer(decoded(stream=True), "msg_1", 1)
    return b"".join([writer.feed(event) for event in events]) + writer.close()


def folded(events: list[Event]) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(MESSAGES.encode_response(decoded(), events, "msg_1", 1))
    return body


def parse(stream: bytes) -> list[dict[str, Any]]:
    """The events, each in the one dress that every client reads."""
    events = []
    for block in stream.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert data.startswith("data: ")
        events.append(event)
    return events


def message_of(stream: bytes) -> dict[str, Any]:
    """The message that a strict client collects from a stream; every break of the grammar is an assertion."""
    first, *events, delta, stop = parse(stream)
    assert first["type"] == "message_start"
    assert (delta["type"], stop) == ("message_delta", {"type": "message_stop"})
    message: dict[str, Any] = first["message"]
    assert message["content"] == []
    arguments = None
    is_open = False
    for event in events:
        if event["type"] == "content_block_start":
            assert not is_open
            is_open, arguments = True, ""
            assert event["index"] == len(message["content"])
            message["content"].append(event["content_block"])
            continue
        assert is_open
        assert event["index"] == len(message["content"]) - 1
        block = message["content"][-1]
        if event["type"] == "content_block_stop":
            is_open = False
            if block["type"] == "tool_use":
                block["input"] = json.loads(arguments or "{}")
            continue
        assert event["type"] == "content_block_delta"
        match event["delta"]:
            case {"type": "text_delta", "text": text}:
                assert block["type"] == "text"
                assert text
                block["text"] += text
            case {"type": "thinking_delta", "thinking": text}:
                block["thinking"] += text
            case {"type": "signature_delta", "signature": signature}:
                block["signature"] = signature
            case {"type": "input_json_delta", "partial_json": text}:
                assert block["type"] == "tool_use"
                arguments += text
            case other:
                raise AssertionError(other)
    assert not is_open
    return {**message, **delta["delta"], "usage": delta["usage"]}


# Any order of events.

objects = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.dictionaries(st.text(max_size=4), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=6,
).map(lambda value: json.dumps({"a": value}, ensure_ascii=False))
arguments = objects | st.sampled_from(["", "{}", "[1]", "null", "no JSON at all", '"text"'])


def pieces(text: str, cuts: list[int]) -> list[str]:
    at = sorted(cut % (len(text) + 1) for cut in cuts)
    return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Calls told in pieces at once, text and thoughts between them, other choices, reports whenever they come."""
    threads: list[list[Event]] = []
    for number in range(draw(st.integers(0, 3))):
        first, *rest = pieces(draw(arguments), draw(st.lists(st.integers(0, 99), max_size=4)))
        call: list[Event] = [ToolCallDelta(number, first, f"call_{number}", f"f{number}")]
        threads.append(call + [ToolCallDelta(number, piece) for piece in rest])
    thought = st.builds(
        ReasoningDelta,
        st.text(max_size=4),
        signature=st.none() | st.just("sig=="),
        encrypted=st.none() | st.just("data"),
    )
    text = st.builds(TextDelta, st.text(max_size=6))
    usage = st.builds(UsageReport, st.builds(Usage, *[st.integers(0, 9)] * 5))
    other = st.builds(TextDelta, st.text(max_size=4), st.just(1)) | st.just(Finished(FinishReason.LENGTH, 1))
    threads.append(
        draw(st.lists(text | text.map(lambda t: RefusalDelta(t.text)) | thought | usage | other, max_size=6))
    )
    events: list[Event] = [Started("up-1", "model-1")] if draw(st.booleans()) else []
    while threads := [thread for thread in threads if thread]:
        events.append(draw(st.sampled_from(threads)).pop(0))
    events.append(Finished(draw(st.sampled_from(FinishReason)), stop_sequence=draw(st.none() | st.just("END"))))
    return events + draw(st.lists(usage, max_size=1))


@given(answers())
@settings(max_examples=400, deadline=None)
def test_any_order_of_events_is_written_as_one_block_after_another_and_says_what_the_whole_answer_says(
    events: list[Event],
) -> None:
    message = message_of(written(events))
    assert message == folded(events)
    text = "".join(event.text for event in events if isinstance(event, TextDelta) and event.index == 0)
    assert "".join(block["text"] for block in message["content"] if block["type"] == "text") == text
    thoughts = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    assert "".join(block["thinking"] for block in message["content"] if block["type"] == "thinking") == thoughts
    told: dict[int, str] = {}
    for event in events:
        if isinstance(event, ToolCallDelta):
            told[event.call] = told.get(event.call, "") + event.arguments
    calls = {block["name"]: block["input"] for block in message["content"] if block["type"] == "tool_use"}
    for number, wanted in told.items():
        whole = json.loads(wanted) if wanted.startswith("{") else {"INVALID_JSON": wanted} if wanted.strip() else {}
        assert calls[f"f{number}"] == whole


@given(answers(), st.integers(0, 30))
@settings(max_examples=100, deadline=None)
def test_a_stream_that_ends_anywhere_is_still_legal(events: list[Event], kept: int) -> None:
    stream = written(events[:kept])
    assert parse(stream)[-1] == {"type": "message_stop"}


@given(answers())
@settings(max_examples=200, deadline=None)
def test_read_back_it_is_the_same_in_a_stream_and_whole(events: list[Event]) -> None:
    def said(read: list[Event]) -> Any:
        calls: dict[int, str] = {}
        for event in read:
            if isinstance(event, ToolCallDelta):
                calls[event.call] = calls.get(event.call, "") + event.arguments
        text = "".join(event.text for event in read if isinstance(event, TextDelta))
        thoughts = "".join(event.text for event in read if isinstance(event, ReasoningDelta))
        proofs = [p for e in read if isinstance(e, ReasoningDelta) for p in (e.signature, e.encrypted) if p]
        end = [event for event in read if isinstance(event, Finished | UsageReport)]
        return text, thoughts, proofs, {number: json.loads(call) for number, call in calls.items()}, end

    reader = MESSAGES.stream_reader()
    streamed = reader.feed(written(events)) + reader.close()
    assert said(streamed) == said(MESSAGES.read_response(json.dumps(folded(events)).encode()))


# Writing answers.


def test_a_call_streams_as_it_comes_and_the_next_one_too() -> None:
    writer = MESSAGES.stream_writer(decoded(), "msg_1", 1)
    writer.feed(Started("x", "y"))
    assert b'"partial_json":"{\\"a\\":"' in writer.feed(ToolCallDelta(0, '{"a":', "c0", "f"))
    assert b'"partial_json":"1}"' in writer.feed(ToolCallDelta(0, "1}"))
    second = writer.feed(ToolCallDelta(1, '{"b":', "c1", "g"))
    assert [event["type"] for event in parse(second)] == [
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
    ]


def test_calls_that_come_at_once_wait_for_each_other() -> None:
    events = [ToolCallDelta(0, '{"a":', "c0", "f"), ToolCallDelta(1, '{"b":', "c1", "g"), TextDelta("so")]
    events += [ToolCallDelta(1, "2}"), ToolCallDelta(0, "1}"), Finished(FinishReason.TOOL_CALLS)]
    content = message_of(written(events))["content"]
    assert [(block["type"], block.get("input")) for block in content] == [
        ("tool_use", {"a": 1}),
        ("tool_use", {"b": 2}),
        ("text", None),
    ]


def test_the_arguments_are_the_text_that_the_model_wrote() -> None:
    text = '{"price": 1.50, "big": 12345678901234567890,\n "same": 1, "same": 2}'
    events: list[Event] = [ToolCallDelta(0, text, "c", "f"), Finished(FinishReason.TOOL_CALLS)]
    assert text.encode() in MESSAGES.encode_response(decoded(), events, "msg_1", 1)
    call = ToolCall("c", "f", text)
    asked = Request(
        model="m",
        task=Conversation([Message(Role.USER, [Text("x")]), Message(Role.ASSISTANT, [call])]),
        protocol="openai_chat",
    )
    body = MESSAGES.encode_request(asked, "m", stream=False)
    assert text.encode() in body
    assert MESSAGES.decode_request(body).task.messages[1].parts == [call]  # type: ignore[union-attr]


def test_a_thought_of_an_upstream_that_signs_nothing_has_the_field_that_clients_need() -> None:
    message = message_of(written([ReasoningDelta("Hm"), TextDelta("Yes"), Finished(FinishReason.STOP)]))
    assert message["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": ""},
        {"type": "text", "text": "Yes"},
    ]


@pytest.mark.parametrize(
    ("finished", "reason"),
    [
        (Finished(FinishReason.STOP), "end_turn"),
        (Finished(FinishReason.STOP, stop_sequence="END"), "stop_sequence"),
        (Finished(FinishReason.LENGTH), "max_tokens"),
        (Finished(FinishReason.TOOL_CALLS), "tool_use"),
        (Finished(FinishReason.CONTENT_FILTER), "refusal"),
        (Paused(FinishReason.STOP), "pause_turn"),
        (WindowFull(FinishReason.LENGTH), "model_context_window_exceeded"),
    ],
)
def test_every_reason_to_stop_goes_there_and_back(finished: Finished, reason: str) -> None:
    stream = written([TextDelta("x"), finished])
    assert message_of(stream)["stop_reason"] == reason
    assert MESSAGES.stream_reader().feed(stream)[-1] == finished
    assert MESSAGES.read_response(json.dumps(folded([finished])).encode())[-1] == finished


def test_an_answer_with_calls_ends_with_tool_use_also_where_the_host_says_stop() -> None:
    events: list[Event] = [ToolCallDelta(0, "{}", "c", "f"), Finished(FinishReason.STOP)]
    assert message_of(written(events))["stop_reason"] == folded(events)["stop_reason"] == "tool_use"


def test_usage_is_cumulative_and_excludes_what_was_cached() -> None:
    usage = Usage(input=7, cached_input=100, cache_write=50, output=9, reasoning=4, cache_write_1h=20)
    events: list[Event] = [Started("x", "y"), TextDelta("x"), Finished(FinishReason.STOP), UsageReport(usage)]
    first, *_ = parse(written(events))
    assert first["message"]["usage"]["input_tokens"] == 0
    assert message_of(written(events))["usage"] == {
        "input_tokens": 7,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 50,
        "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 20},
        "output_tokens": 9,
        "output_tokens_details": {"thinking_tokens": 4},
    }
    early = [events[-1], *events[:-1]]
    assert parse(written(early))[0]["message"]["usage"]["input_tokens"] == 7


# Reading streams.


def test_a_stream_without_its_end_has_no_finish() -> None:
    stream = written([TextDelta("x"), Finished(FinishReason.STOP)])
    cut = stream[: stream.index(b"event: message_delta")]
    reader = MESSAGES.stream_reader()
    assert not any(isinstance(event, Finished) for event in reader.feed(cut) + reader.close())
    reader = MESSAGES.stream_reader()
    assert sum(isinstance(event, Finished) for event in reader.feed(stream) + reader.close()) == 1


def test_garbage_is_an_upstreams_error() -> None:
    with pytest.raises(UpstreamBroken):
        MESSAGES.stream_reader().feed(b"event: message_start\ndata: {nonsense\n\n")
    with pytest.raises(ValueError, match="stop_reason"):
        MESSAGES.read_response(b'{"content":[],"stop_reason":null}')


# Passing through.


def relayed(stream: bytes) -> tuple[bytes, bytes, Observation]:
    """(what is forwarded, what the end adds, what was seen)"""
    relay = MESSAGES.passthrough(decoded(stream=True), Observation())
    return relay.feed(stream), relay.close(), relay.observation


def test_a_relay_forwards_the_bytes_and_holds_the_last_event_back() -> None:
    usage = Usage(5, 6, 7, 8, 3)
    events: list[Event] = [ReasoningDelta("h"), TextDelta("x"), UsageReport(usage), Finished(FinishReason.LENGTH)]
    stream = written(events) + MESSAGES.stream_comment
    forwarded, end, seen = relayed(stream)
    assert end == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    assert forwarded + end == stream.replace(MESSAGES.stream_comment, b"").replace(end, MESSAGES.stream_comment + end)
    assert (seen.usage, seen.deltas, seen.finish_reasons) == (usage, 2, {0: FinishReason.LENGTH})


def test_a_relay_puts_every_event_into_the_dress_that_clients_read() -> None:
    stream = b': hi\n\nid: 4\r\ndata:{"type":"ping"}\r\n\r\ndata: {"type":"new_event",\ndata: "x":1}\n\n'
    stream += b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
    stream += b'data: {"type":"message_stop"}'
    forwarded, end, _ = relayed(stream)
    kinds = [event["type"] for event in parse(forwarded + end)]
    assert kinds == ["ping", "new_event", "message_start", "message_delta", "message_stop"]


def test_a_relay_never_passes_a_cut_or_a_failure_off_as_complete() -> None:
    stream = written([TextDelta("x"), Finished(FinishReason.STOP)])
    with pytest.raises(UpstreamBroken):
        relayed(stream[: stream.index(b"event: message_delta")])
    assert relayed(stream[: stream.index(b"event: message_stop")])[1].startswith(b"event: message_stop\n")
    failure = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    with pytest.raises(UpstreamOverloaded):
        relayed(stream[: stream.index(b"event: message_delta")] + failure)
    with pytest.raises(UpstreamBroken):
        MESSAGES.passthrough(decoded(), Observation()).whole(b'{"content":[]}')


# Requests of callers.


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "x"}}]}]},
            "messages[0].content[0].source.media_type",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": 1}]}
                ]
            },
            "messages[0].content[0].input",
        ),
        ({"temperature": 1.5}, "temperature"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "g"}, "tools": [{"name": "f", "input_schema": {}}]}, "tool_choice"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "wild"}}, "thinking.type"),
        ({"output_config": {"effort": "heroic"}}, "output_config.effort"),
        ({"stop_sequences": [""]}, "stop_sequences[0]"),
    ],
)
def test_a_bad_request_is_refused_by_the_name_of_its_member(members: dict[str, Any], param: str) -> None:
    assert refusal_of(**members).param == param


def test_what_only_this_protocol_knows_is_refused_elsewhere_by_name() -> None:
    document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
    request = decoded(messages=[{"role": "user", "content": [document]}])
    with pytest.raises(InvalidRequest, match="'document'"):
        CHAT.encode_request(request, "m", stream=False)
    request = decoded(tools=[{"type": "web_search_20250305", "name": "web_search"}])
    with pytest.raises(InvalidRequest, match="web_search_20250305"):
        CHAT.encode_request(request, "m", stream=False)
    assert decoded(container="c", mcp_servers=[{"url": "x"}], inference_geo="us").own == [
        "container",
        "inference_geo",
        "mcp_servers",
    ]
    assert decoded(container=None, mcp_servers=[], inference_geo="global").own == []
    assert decoded(thinking={"type": "adaptive"}).ignored == ["thinking"]
    assert decoded(thinking={"type": "adaptive"}, output_config={"effort": "low"}).ignored == []
    failed = {"type": "tool_result", "tool_use_id": "t", "is_error": True}
    assert decoded(messages=[{"role": "user", "content": [failed]}]).ignored == ["is_error"]
    assert decoded(context_management={"edits": [1]}, speed="fast").ignored == ["context_management", "speed"]


def test_an_agents_turn_reaches_a_chat_upstream_whole() -> None:
    request = decoded(
        system=[{"type": "text", "text": "You are terse."}],
        thinking={"type": "enabled", "budget_tokens": 4096},
        tools=[{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
        tool_choice={"type": "auto", "disable_parallel_tool_use": True},
        messages=[
            {"role": "user", "content": "Go"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm", "signature": ""},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                    {"type": "tool_use", "id": "t2", "name": "f", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                    {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "two"}]},
                    {"type": "text", "text": "Well?"},
                ],
            },
        ],
    )
    body = json.loads(CHAT.encode_request(request, "m", stream=True))
    calls = [
        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "t2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]
    assert body["messages"] == [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": None, "tool_calls": calls, "reasoning_content": "Hm"},
        {"role": "tool", "tool_call_id": "t1", "content": "one"},
        {"role": "tool", "tool_call_id": "t2", "content": "two"},
        {"role": "user", "content": "Well?"},
    ]
    assert body["parallel_tool_calls"] is False
    assert body["reasoning_effort"] == "medium"


# Versions.


def test_both_versions_are_served_and_no_other() -> None:
    for version in ("2023-06-01", "2026-10-21"):
        read_headers(decoded(), {"anthropic-version": version})
    read_headers(decoded(), {})
    with pytest.raises(InvalidRequest, match="2026-10-21"):
        read_headers(decoded(), {"anthropic-version": "2020-01-01"})


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"temperature": 1.0}, "temperature"),
        ({"top_p": 1.0}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"messages": [{"role": "assistant", "content": [{"type": "document", "source": {}}]}]}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "citations": [{"type": "y"}]}]}]},
            "messages",
        ),
    ],
)
def test_what_the_later_version_no_longer_takes(members: dict[str, Any], param: str) -> None:
    request = decoded(**members)
    read_headers(request, {"anthropic-version": "2023-06-01"})
    with pytest.raises(InvalidRequest) as refused:
        read_headers(request, {"anthropic-version": "2026-10-21"})
    assert refused.value.param == param


def test_previews_are_passed_on_with_our_own_version() -> None:
    request = decoded()
    read_headers(request, {"anthropic-version": "2026-10-21", "anthropic-beta": "a-2025,b-2026"})
    assert upstream_headers(request) == {"anthropic-version": "2023-06-01", "anthropic-beta": "a-2025,b-2026"}
    assert upstream_headers(Request("m", request.task, "openai_chat")) == {"anthropic-version": "2023-06-01"}
    assert MESSAGES.headers("secret") == {"x-api-key": "secret"}
    assert CHAT.headers("secret") == {"authorization": "Bearer secret"}


# Requests to upstreams.


def sent(**members: Any) -> dict[str, Any]:
    """What an upstream of this protocol gets for a chat request."""
    ask = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **members}
    request = CHAT.decode_request(json.dumps(ask).encode())
    body: dict[str, Any] = json.loads(MESSAGES.encode_request(request, "up", stream=False))
    return body


def test_a_chat_request_in_this_protocol() -> None:
    body = sent(
        messages=[
            {"role": "system", "content": "A"},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": ""}]},
            {"role": "developer", "content": "B"},
            {
                "role": "assistant",
                "content": "",
                "reasoning_content": "unsigned",
                "tool_calls": [
                    {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
                    {"id": "c2", "type": "function", "function": {"name": "f", "arguments": ""}},
                    {"id": "c3", "type": "function", "function": {"name": "f", "arguments": "oops"}},
                ],
            },
            {"role": "tool", "tool_call_id": "functions.f:0", "content": "one"},
            {"role": "tool", "tool_call_id": "c2", "content": ""},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}]},
        ],
        tools=[{"type": "function", "function": {"name": "f"}}],
        parallel_tool_calls=False,
        stop="END",
        user="u",
        reasoning_effort="minimal",
        frequency_penalty=0,
        seed=1,
    )
    assert body == {
        "model": "up",
        "max_tokens": 8192,
        "system": [{"type": "text", "text": "A"}, {"type": "text", "text": "B"}],
        "messages": [
            {"role": "user", "content": "Hi"},
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "functions_f_0", "name": "f", "input": {"a": 1}},
                    {"type": "tool_use", "id": "c2", "name": "f", "input": {}},
                    {"type": "tool_use", "id": "c3", "name": "f", "input": {"INVALID_JSON": "oops"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "functions_f_0", "content": "one"},
                    {"type": "tool_result", "tool_use_id": "c2"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                ],
            },
        ],
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "output_config": {"effort": "low"},
        "thinking": {"type": "adaptive"},
    }


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"min_tokens": 3}, "min_tokens"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
    ],
)
def test_what_this_protocol_cannot_carry_is_refused_by_name(members: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sent(**members)
    assert refused.value.param == param


def test_proofs_of_thoughts_survive_and_what_nobody_signed_is_reported() -> None:
    encrypted = [Thinking(encrypted="tokenworks.redacted:d"), Thinking(encrypted="another's")]
    thoughts = [Thinking("a", signature="s"), *encrypted, Thinking("unsigned"), Text("so")]
    turns = [Message(Role.USER, [Text("x")]), Message(Role.ASSISTANT, [*thoughts])]
    request = Request(model="m", task=Conversation(turns), protocol="openai_responses")
    body = json.loads(MESSAGES.encode_request(request, "m", stream=False))
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "a", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "text", "text": "so"},
    ]
    assert request.ignored == ["messages.reasoning_content"]


def test_the_callers_body_passes_with_another_model_and_without_thoughts_that_nobody_signed() -> None:
    thoughts = [
        {"type": "thinking", "thinking": "ours", "signature": ""},
        {"type": "thinking", "thinking": "theirs", "signature": "EqQ="},
        {"type": "text", "text": "x", "citations": [{"type": "page_location"}]},
    ]
    messages = [
        {"role": "user", "content": 'He said: "signature"'},
        {"role": "assistant", "content": thoughts[:1]},
        {"role": "assistant", "content": thoughts},
    ]
    members = {"messages": messages, "anything_new": {"x": [1.50]}}
    body = json.loads(MESSAGES.rewrite_request(decoded(**members), "up"))
    assert body == {
        **ASK,
        **members,
        "model": "up",
        "messages": [messages[0], {**messages[2], "content": thoughts[1:]}],
    }


def test_a_tool_result_without_content_and_an_error_go_there_and_back() -> None:
    parts = [ToolResult("a", [], is_error=True), ToolResult("b", [Text("x", cache_ttl="1h")], cache_ttl="5m")]
    request = decoded()
    request.task = Conversation([Message(Role.USER, [*parts])])
    body = MESSAGES.encode_request(request, "m", stream=False)
    assert MESSAGES.decode_request(body).task == request.task


# Errors.


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("x", param="messages"), 400, "invalid_request_error"),
        (Unauthenticated("x"), 401, "authentication_error"),
        (LimitReached("x"), 429, "rate_limit_error"),
        (LimitReached("x", code="insufficient_quota"), 402, "billing_error"),
        (UpstreamTimeout("x"), 504, "timeout_error"),
        (UpstreamOverloaded("x"), 529, "overloaded_error"),
        (UpstreamBroken("x"), 502, "api_error"),
    ],
)
def test_every_error_has_this_protocols_status_and_type(error: TokenworksError, status: int, kind: str) -> None:
    error.request_id = "req_1"
    body = json.loads(MESSAGES.encode_error(error))
    assert MESSAGES.error_status(error) == status  # type: ignore[attr-defined]
    details = {"code": error.code, "param": error.param}
    assert body == {"type": "error", "error": {"type": kind, "message": "x", "details": details}, "request_id": "req_1"}
    assert MESSAGES.encode_stream_error(error).startswith(b'event: error\ndata: {"type":"error"')
    writer = MESSAGES.stream_writer(decoded(), "msg_1", 1)
    assert writer.feed(Failed(error)) == MESSAGES.encode_stream_error(error)


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "prompt is too long: 210000 tokens > 200000 maximum", ContextLengthExceeded),
        (400, "Your credit balance is too low to access the API.", UpstreamRejected),
        (400, "max_tokens: Field required", InvalidRequest),
        (401, "invalid x-api-key", UpstreamRejected),
        (404, "model: claude-nope", UpstreamRejected),
        (429, "slow down", UpstreamOverloaded),
        (529, "Overloaded", UpstreamOverloaded),
    ],
)
def test_an_upstreams_error_is_read(status: int, message: str, expected: type) -> None:
    body = json.dumps({"type": "error", "error": {"type": "x", "message": message}, "request_id": "req"}).encode()
    error = MESSAGES.read_error(status, body, provider="up", retry_after=None)
    assert type(error) is expected
    assert (error.provider, error.upstream_status) == ("up", status)
    assert "balance" not in error.message


# Models.


def test_models_come_in_pages() -> None:
    models = [Model(f"m{number}", 1_700_000_000, 4096, None, ["vision"]) for number in range(5)]

    def page(query: bytes) -> tuple[list[str], bool]:
        body = json.loads(encode_models(models, query))
        ids = [model["id"] for model in body["data"]]
        assert (body["first_id"], body["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        return ids, body["has_more"]

    assert page(b"") == (["m0", "m1", "m2", "m3", "m4"], False)
    assert page(b"limit=2") == (["m0", "m1"], True)
    assert page(b"limit=2&after_id=m1") == (["m2", "m3"], True)
    assert page(b"limit=2&after_id=m3") == (["m4"], False)
    assert page(b"limit=2&before_id=m4") == (["m2", "m3"], True)
    assert page(b"limit=9&before_id=m2") == (["m0", "m1"], False)
    assert page(b"after_id=m4") == ([], False)
    for query in (b"limit=0", b"limit=x", b"after_id=nope"):
        with pytest.raises(InvalidRequest):
            page(query)
    first = json.loads(encode_models(models, b""))["data"][0]
    assert first["created_at"] == "2023-11-14T22:13:20Z"
    assert first["capabilities"]["image_input"] == {"supported": True}
    assert first["capabilities"]["thinking"]["supported"] is False
