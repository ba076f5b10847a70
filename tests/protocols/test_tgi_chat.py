"""Chat in TGI's dialect: what its own client needs of every chunk (measured), for any order of events."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.core.errors import InvalidRequest, UpstreamOverloaded
from tokenworks.core.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from tokenworks.core.request import Request, ResponseFormat
from tokenworks.core.usage import Usage
from tokenworks.protocols import codec

CHAT, DIALECT = codec("openai_chat"), codec("tgi_chat")
NULLS = ("tools", "tool_choice", "temperature", "top_p", "seed", "n", "max_tokens", "logit_bias", "logprobs")


def asked(**members: object) -> Request:
    message = {"role": "user", "content": "Hi", "name": None}
    body = {"model": "tgi", "messages": [message], **dict.fromkeys(NULLS), **members}
    return CHAT.decode_request(json.dumps(body).encode())


def check(chunk: dict[str, Any]) -> None:
    """What text_generation.types.ChatCompletionChunk demands."""
    assert all(isinstance(chunk[name], str) for name in ("id", "object", "model", "system_fingerprint"))
    assert isinstance(chunk["created"], int)
    for choice in chunk["choices"]:
        delta = choice["delta"]
        assert {"index", "logprobs", "finish_reason"} <= choice.keys()
        assert isinstance(delta["role"], str)
        assert {"content", "tool_calls"} <= delta.keys()
        if (call := delta["tool_calls"]) is not None:
            assert isinstance(call["index"], int)
            assert isinstance(call["id"], str)
            assert isinstance(call["type"], str)
            assert isinstance(call["function"]["arguments"], str)
            assert "name" in call["function"]


def written(request: Request, events: list[Event]) -> list[dict[str, Any]]:
    writer = DIALECT.stream_writer(request, "id-1", 1)
    stream = (b"".join([writer.feed(event) for event in events]) + writer.close()).decode()
    assert "[DONE]" not in stream
    blocks = [block for block in stream.split("\n\n") if block]
    assert all(block.startswith("data: {") for block in blocks)
    found = [json.loads(block.removeprefix("data: ")) for block in blocks]
    for chunk in found:
        check(chunk)
    return found


def test_the_name_asks_for_the_dialect_and_for_the_default_model() -> None:
    request = asked()
    assert (request.model, request.protocol) == ("", "tgi_chat")
    assert json.loads(CHAT.encode_request(request, "real", stream=False))["model"] == "real"


def test_hugging_faces_other_placeholder_asks_for_the_default_model_only() -> None:
    request = asked(model="dummy")
    assert (request.model, request.protocol) == ("", "openai_chat")


def test_hugging_faces_schema_is_enforced_also_when_the_body_passes_through() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    request = asked(model="dummy", response_format={"type": "json_object", "value": schema})
    assert request.response_format == ResponseFormat(schema=schema)
    sent = json.loads(CHAT.rewrite_request(request, "m"))["response_format"]
    assert (sent["type"], sent["json_schema"]["schema"]) == ("json_schema", schema)


def test_parts_of_a_call_carry_its_id_and_one_call_is_no_list() -> None:
    events: list[Event] = [
        ToolCallDelta(0, '{"a":', "call_1", "f"),
        ToolCallDelta(1, "", "call_2", "g"),
        ToolCallDelta(0, " 1}"),
        Finished(FinishReason.TOOL_CALLS),
    ]
    calls = [chunk["choices"][0]["delta"]["tool_calls"] for chunk in written(asked(), events)]
    assert [call and (call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls] == [
        ("call_1", "f", '{"a":'),
        ("call_2", "g", ""),
        ("call_1", None, " 1}"),
        None,
    ]


EVENTS = st.lists(
    st.one_of(
        st.builds(TextDelta, st.text(max_size=4), st.integers(0, 1)),
        st.builds(ReasoningDelta, st.text(max_size=4), st.integers(0, 1), st.none() | st.just("proof")),
        st.builds(RefusalDelta, st.text(max_size=4)),
        st.builds(
            ToolCallDelta, st.integers(0, 2), st.text(max_size=4), st.none() | st.just("call"), st.none() | st.just("f")
        ),
        st.builds(UsageReport, st.builds(Usage, st.integers(0, 9))),
        st.just(Started("up", "real")),
        st.builds(Finished, st.sampled_from(FinishReason), st.integers(0, 1)),
    ),
    max_size=15,
)


@given(EVENTS, st.booleans())
@settings(deadline=None)
def test_any_order_of_events_is_what_its_client_can_read(events: list[Event], include_usage: bool) -> None:
    request = asked()
    request.include_usage = include_usage
    found = written(request, events)
    texts = "".join(c["delta"]["content"] or "" for chunk in found for c in chunk["choices"] if c["index"] == 0)
    said = [e.text for e in events if isinstance(e, TextDelta) and not isinstance(e, RefusalDelta) and e.index == 0]
    assert texts == "".join(said)
    assert ("usage" in found[-1] if found else False) == include_usage


def test_a_whole_answer_has_what_its_client_demands() -> None:
    events: list[Event] = [TextDelta("Hi"), Finished(FinishReason.STOP), UsageReport(Usage(input=3, output=1))]
    body = json.loads(DIALECT.encode_response(asked(), events, "id-1", 1))
    assert isinstance(body["system_fingerprint"], str)
    assert body["usage"]["total_tokens"] == 4
    assert "logprobs" in body["choices"][0]


def test_errors_have_tgis_shape() -> None:
    assert json.loads(DIALECT.encode_error(InvalidRequest("no"))) == {"error": "no", "error_type": "validation"}
    assert b'"overloaded"' in DIALECT.encode_stream_error(UpstreamOverloaded("no"))


def test_a_dialect_is_no_protocol_of_an_upstream() -> None:
    with pytest.raises(ValueError, match="unknown protocol"):
        codec("tgi_nothing")
