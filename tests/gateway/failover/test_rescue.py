"""Every kind of failure in front of a healthy second target, and alone: over real sockets, with limits scaled down."""

import json
from typing import Any

import pytest

BEFORE = [
    "rate-limited", "rate-limited-bare", "error-500", "overloaded", "credential", "quota", "unknown-model", "reset",
    "silence", "slow-first-token", "empty", "page", "context-length", "cut-after-0", "garbled-after-0",
]  # fmt: skip
TOTAL = 3.0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", BEFORE)
def test_a_fault_before_the_first_output_is_rescued(place: Any, whole_text: str, fault: str, stream: bool) -> None:
    told = place.ask(place.model(f"a/{fault}", "b/ok"), stream=stream)
    assert (told.status, told.text, told.complete, told.error) == (200, whole_text, True, {})
    assert (told.named("provider"), told.named("model"), told.named("attempts")) == ("provider-b", "ok", "2")
    failed, answered = place.attempts(told)
    assert (failed.outcome, failed.charge) == ("failed", 0)
    assert (answered.outcome, answered.usage.output) == ("completed", 12)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("target", ["tls/ok", "gone/ok"])
def test_who_cannot_be_reached_is_passed_over(place: Any, whole_text: str, target: str, stream: bool) -> None:
    told = place.ask(place.model(target, "b/ok"), stream=stream)
    assert (told.status, told.text, told.complete) == (200, whole_text, True)


@pytest.mark.parametrize("protocol", ["openai_chat", "anthropic_messages", "openai_responses"])
@pytest.mark.parametrize("fault", ["cut-after-5", "stall-after-5", "garbled-after-5", "missing-terminator-after-5"])
@pytest.mark.parametrize("second", ["b/ok", "a/ok", "m/ok"], ids=["resumes", "begins anew", "another protocol"])
def test_a_stream_that_is_lost_in_the_middle_goes_on(
    place: Any, whole_text: str, fault: str, protocol: str, second: str
) -> None:
    told = place.ask(place.model(f"a/{fault}", second), protocol)
    assert (told.text, told.complete, told.error) == (whole_text, True, {})
    assert told.named("attempts") == "2"  # in the head, where a busy machine made one piece of all
    failed, answered = place.attempts(told)
    assert (failed.outcome, failed.charge) == ("failed", 0)
    assert answered.usage.output == 12
    assert answered.usage.input == 10
    assert answered.charge == 10 + 12 * 1000
    assert told.usage == (10, 12)


@pytest.mark.parametrize("second", ["b/ok", "m/ok", "r/ok"], ids=["resumes", "another protocol", "the same protocol"])
@pytest.mark.parametrize("fault", ["cut-after-5", "garbled-after-5", "missing-terminator-after-5"])
def test_responses_that_were_passed_through_go_on(place: Any, whole_text: str, fault: str, second: str) -> None:
    told = place.ask(place.model(f"r/{fault}", second), "openai_responses")
    assert (told.text, told.complete, told.error) == (whole_text, True, {})
    events = [json.loads(line[6:]) for line in told.raw.split(b"\n") if line.startswith(b"data: {")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert len({event["response"]["id"] for event in events if "response" in event}) == 1
    assert len({event["item_id"] for event in events if "item_id" in event}) == 1
    (item,) = events[-1]["response"]["output"]
    assert (item["id"], item["content"][0]["text"]) == (events[2]["item"]["id"], whole_text)
    assert [each.outcome for each in place.attempts(told)] == ["failed", "completed"]
    assert told.usage == (10, 12)


def test_an_identity_that_was_told_stays(place: Any) -> None:
    told = place.ask(place.model("a/cut-after-5", "b/ok"))
    chunks = [json.loads(line[6:]) for line in told.raw.split(b"\n") if line.startswith(b"data: {")]
    assert len({chunk["id"] for chunk in chunks}) == len({chunk["created"] for chunk in chunks}) == 1
    assert sum("role" in choice["delta"] for chunk in chunks for choice in chunk["choices"]) == 1


@pytest.mark.parametrize("protocol", ["openai_chat", "anthropic_messages", "openai_responses"])
def test_lost_calls_of_tools_are_whole_or_failed(place: Any, protocol: str) -> None:
    function = {"name": "weather", "parameters": {"type": "object"}}
    tools: dict[str, Any] = {
        "openai_chat": {"tools": [{"type": "function", "function": function}], "tool_choice": "required"},
        "openai_responses": {"tools": [{"type": "function", **function}], "tool_choice": "required"},
        "anthropic_messages": {
            "tools": [{"name": "weather", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any"},
        },
    }[protocol]
    for second in ("b/ok", "m/ok"):
        told = place.ask(place.model("a/cut-after-2", second), protocol, **tools)
        assert json.loads(told.calls) == {"city": "Paris", "days": 3}
        assert (told.complete, told.error) == (True, {})
    alone = place.ask(place.model("a/cut-after-2"), protocol, **tools)
    assert alone.error
    assert not alone.complete


def test_whoever_refuses_a_prefill_is_asked_to_begin_anew(place: Any, whole_text: str) -> None:
    told = place.ask(place.model("a/cut-after-5", "m/prefill-refused"))
    assert (told.text, told.complete) == (whole_text, True)
    outcomes = [settled.outcome for settled in place.attempts(told)]
    assert outcomes == ["failed", "failed", "completed"]


def test_losses_may_follow_each_other(place: Any, whole_text: str) -> None:
    told = place.ask(place.model("a/cut-after-2", "b/cut-after-3", "m/ok"))
    assert (told.text, told.complete) == (whole_text, True)
    assert place.attempts(told)[-1].charge == 10 + 12 * 1000


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("cut-after-5", "upstream_broken"), ("stall-after-5", "idle_timeout"), ("garbled-after-5", "upstream_broken"),
        ("missing-terminator-after-5", "upstream_broken"), ("silence", "first_token_timeout"),
        ("slow-first-token", "first_token_timeout"), ("reset", "upstream_broken"), ("error-500", "upstream_broken"),
        ("rate-limited", "upstream_overloaded"), ("credential", "upstream_authentication"), ("quota", "upstream_quota"),
        ("context-length", "context_length_exceeded"), ("content-filter", "content_policy_violation"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [True, False])
def test_alone_it_is_bounded_and_clean(place: Any, fault: str, code: str, stream: bool) -> None:
    limits = type(place.state.models["assistant"].limits)(0.5, 0.4, 0.4, TOTAL if stream else TOTAL / 2)
    told = place.ask(place.model(f"a/{fault}", limits=limits), stream=stream)
    assert not told.complete
    if not stream and fault.startswith(("stall", "silence", "slow")):
        code = "total_timeout"
    assert told.error["code"] == code
    assert sum(settled.charge for settled in place.attempts(told)) == 0


def test_callers_errors_and_content_policy_are_never_tried_elsewhere(place: Any) -> None:
    told = place.ask(place.model("a/content-filter", "b/ok"))
    assert (told.status, told.error["code"]) == (400, "content_policy_violation")
    assert told.headers["x-tokenworks-attempts"] == "1"


def test_a_policy_of_error_ends_where_the_stream_broke(place: Any) -> None:
    policy = type(place.state.models["assistant"].policy)(retries=1, hedge=0, breaker=0, on_stream_loss="error")
    told = place.ask(place.model("a/cut-after-5", "b/ok", policy=policy))
    assert told.text == "The quick brown fox jumps"
    assert told.error["code"] == "upstream_broken"
    assert not told.complete


def test_a_retry_on_the_same_target_after_a_back_off(place: Any, whole_text: str) -> None:
    told = place.ask(place.model("a/error-500-once"))
    assert (told.text, told.complete) == (whole_text, True)
    assert told.headers["x-tokenworks-attempts"] == "2"
