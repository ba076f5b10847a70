"""Groq's and Fireworks' dialects: legal for any order of events, reasoning as asked for, measurements at the end."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.errors import InvalidRequest, UpstreamOverloaded
from tokenworks.core.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    Timing,
    ToolCallDelta,
    UsageReport,
)
from tokenworks.core.usage import Usage
from tokenworks.protocols import codec

BASE = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
TIMING = Timing(1.0, 2.0, 4.0)
USAGE = UsageReport(Usage(input=3, cached_input=1, output=5, reasoning=2))
THOUGHT: list[Event] = [
    Started("up", "m"),
    ReasoningDelta("so"),
    ReasoningDelta(" be it"),
    TextDelta("Yes"),
    Finished(FinishReason.STOP),
    USAGE,
    TIMING,
]


def asked(**members: Any) -> bytes:
    return json.dumps(BASE | members).encode()


def written(name: str, body: bytes, events: list[Event]) -> list[dict[str, Any]]:
    """The chunks of a stream, whose dress is checked."""
    spoken = codec(name)
    writer = spoken.stream_writer(spoken.decode_request(body), "chatcmpl-1", 7)
    data = b"".join([writer.feed(event) for event in events]) + writer.close()
    *blocks, done, rest = data.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert all(block.startswith(b"data: {") and b"\n" not in block for block in blocks)
    return [json.loads(block[6:]) for block in blocks]


def whole(name: str, body: bytes, events: list[Event]) -> dict[str, Any]:
    spoken = codec(name)
    answer: dict[str, Any] = json.loads(spoken.encode_response(spoken.decode_request(body), events, "chatcmpl-1", 7))
    return answer


@pytest.mark.parametrize(
    ("members", "text", "reasoning"),
    [
        ({}, "Yes", "so be it"),
        ({"reasoning_format": "parsed"}, "Yes", "so be it"),
        ({"reasoning_format": "raw"}, "<think>\nso be it\n</think>\nYes", ""),
        ({"reasoning_format": "hidden"}, "Yes", ""),
        ({"include_reasoning": False}, "Yes", ""),
        ({"include_reasoning": True}, "Yes", "so be it"),
    ],
)
def test_groq_shows_reasoning_as_asked_in_streams_and_whole(members: Any, text: str, reasoning: str) -> None:
    deltas = [c["choices"][0]["delta"] for c in written("groq_chat", asked(stream=True, **members), THOUGHT)]
    assert "".join(delta.get("content") or "" for delta in deltas) == text
    assert "".join(delta.get("reasoning") or "" for delta in deltas) == reasoning
    message = whole("groq_chat", asked(**members), THOUGHT)["choices"][0]["message"]
    assert (message["content"], message.get("reasoning", "")) == (text, reasoning)


def test_groq_measures() -> None:
    times = {"queue_time": 1.0, "prompt_time": 2.0, "completion_time": 4.0, "total_time": 6.0}
    answer = whole("groq_chat", asked(seed=9), THOUGHT)
    assert times.items() <= answer["usage"].items()
    assert answer["x_groq"] == {"id": "req_1", "seed": 9}
    first, *_, last = written("groq_chat", asked(seed=9, stream=True), THOUGHT)
    assert first["x_groq"] == answer["x_groq"]
    assert last["usage"] == last["x_groq"]["usage"] == answer["usage"]
    assert {chunk["service_tier"] for chunk in (first, last, answer)} == {"on_demand"}


@pytest.mark.parametrize(
    ("tier", "echoed"), [("default", "on_demand"), ("flex", "flex"), ("priority", "performance"), (None, "on_demand")]
)
def test_groq_tells_the_tier_that_was_really_used(tier: str | None, echoed: str) -> None:
    events = [Started("up", "m", tier), *THOUGHT[1:]]
    assert whole("groq_chat", asked(service_tier="flex"), events)["service_tier"] == echoed
    assert written("groq_chat", asked(service_tier="auto", stream=True), events)[-1]["service_tier"] == echoed


def test_groq_refuses_by_name() -> None:
    for members, param in (
        ({"reasoning_format": "loud"}, "reasoning_format"),
        ({"reasoning_format": "raw", "include_reasoning": True}, "include_reasoning"),
        ({"service_tier": "gold"}, "service_tier"),
    ):
        with pytest.raises(InvalidRequest) as refused:
            codec("groq_chat").decode_request(asked(**members))
        assert refused.value.param == param
    error: Any = codec("groq_chat").encode_error(UpstreamOverloaded("full"))
    assert json.loads(error) == {"error": {"message": "full", "type": "upstream_error", "code": "upstream_overloaded"}}


def test_fireworks_measures_when_asked() -> None:
    told = {
        "prompt-tokens": "4",
        "cached-prompt-tokens": "1",
        "server-time-to-first-token": "3.000000",
        "server-processing-time": "7.000000",
    }
    body = asked(perf_metrics_in_response=True)
    assert whole("fireworks_chat", body, THOUGHT)["perf_metrics"] == told
    *others, last = written("fireworks_chat", asked(perf_metrics_in_response=True, stream=True), THOUGHT)
    assert last["perf_metrics"] == told
    assert last["choices"][0]["finish_reason"] == "stop"
    assert not any("perf_metrics" in chunk for chunk in others)
    assert "perf_metrics" not in whole("fireworks_chat", asked(), THOUGHT)
    assert codec("openai_chat").decode_request(body).protocol == "fireworks_chat"
    long = asked(model="accounts/fireworks/models/m")
    assert codec("fireworks_chat").decode_request(long).model == "m"


EVENTS = st.lists(
    st.one_of(
        st.builds(TextDelta, st.text(max_size=3), st.integers(0, 1)),
        st.builds(ReasoningDelta, st.text(max_size=3), st.integers(0, 1)),
        st.builds(ToolCallDelta, st.integers(0, 1), st.text(max_size=3), st.just("c"), st.just("f"), st.integers(0, 1)),
        st.just(USAGE),
    ),
    max_size=12,
)


@given(
    EVENTS,
    st.sampled_from(["groq_chat", "fireworks_chat"]),
    st.sampled_from([{}, {"reasoning_format": "raw"}, {"perf_metrics_in_response": True}]),
    st.booleans(),
)
def test_any_order_of_events_is_written_legally(
    events: list[Event], name: str, members: dict[str, Any], usage: bool
) -> None:
    if name == "fireworks_chat":
        members = {key: value for key, value in members.items() if key != "reasoning_format"}
    finishes: list[Event] = [Finished(FinishReason.STOP, 0), Finished(FinishReason.LENGTH, 1)]
    options = {"stream": True, **({"stream_options": {"include_usage": True}} if usage else {})}
    chunks = written(name, asked(**members, **options), [Started("up", "m"), *events, *finishes, TIMING])
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert isinstance(chunk["choices"], list)
    told = [choice for chunk in chunks for choice in chunk["choices"]]
    assert [choice["finish_reason"] for choice in told if choice["finish_reason"]] == ["stop", "length"]
    assert not usage or chunks[-1]["choices"] == []
    plain = [replace(event) for event in events if isinstance(event, TextDelta)]
    if "reasoning_format" not in members:
        for index in (0, 1):
            said = "".join(choice["delta"].get("content") or "" for choice in told if choice["index"] == index)
            assert said == "".join(event.text for event in plain if event.index == index)
