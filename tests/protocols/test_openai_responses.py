"""The Responses API beyond its specimens: the grammar of every stream we write, odd requests, what storing needs."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenworks.core.errors import InvalidRequest, TokenworksError, UpstreamBroken, UpstreamTimeout
from tokenworks.core.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    Started,
    SummaryDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    UsageReport,
)
from tokenworks.core.messages import Foreign, Message, Role, Text, Thinking, ToolCall, ToolChoice, ToolMode
from tokenworks.core.request import Conversation, Request
from tokenworks.core.usage import Usage
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation
from tokenworks.protocols.openai_responses.stored import (
    completed,
    continue_from,
    history,
    input_items,
    stored_response,
)

RESPONSES = codec("openai_responses")


def decoded(**members: Any) -> Request:
    return RESPONSES.decode_request(json.dumps({"model": "m", "input": "Hi", **members}).encode())


def conversation(request: Request) -> Conversation:
    assert isinstance(request.task, Conversation)
    return request.task


texts = st.text(max_size=4)
logprobs = st.none() | st.lists(st.builds(TokenLogprob, texts, st.just(-0.5), st.just([65]), st.just([])), max_size=2)
proofs = st.sampled_from([{}, {}, {"signature": "sig"}, {"encrypted": "enc"}])
indexes = st.sampled_from([0, 0, 0, 0, 1])
usages = st.builds(Usage, *[st.integers(0, 9)] * 5)
deltas = st.one_of(
    st.builds(TextDelta, texts, indexes, logprobs),
    st.builds(RefusalDelta, texts, indexes),
    st.builds(lambda text, index, proof: ReasoningDelta(text, index, **proof), texts, indexes, proofs),
    st.builds(lambda text, index, proof: SummaryDelta(text, index, **proof), texts, indexes, proofs),
    st.builds(ToolCallDelta, st.integers(0, 2), texts, index=indexes),
    st.builds(UsageReport, usages),
)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Deltas of any kind in any order; calls are named by their first; choices and usage interleave."""
    events: list[Event] = [Started("up", "model-1")] if draw(st.booleans()) else []
    named: set[tuple[int, int]] = set()
    for event in draw(st.lists(deltas, max_size=14)):
        if isinstance(event, ToolCallDelta) and (event.index, event.call) not in named:
            named.add((event.index, event.call))
            event.id, event.name = f"call_{event.call}", "f"
        events.append(event)
    events.append(Finished(draw(st.sampled_from(FinishReason))))
    return events + draw(st.lists(st.builds(UsageReport, usages), max_size=2))


class Checker:
    """An independent reading of the grammar: raises on the first event that may not come there."""

    def __init__(self) -> None:
        self.items: dict[int, dict[str, Any]] = {}
        self.done: dict[int, dict[str, Any]] = {}
        self.part: dict[str, Any] | None = None
        self.response: dict[str, Any] = {}
        self.terminal = ""

    def see(self, number: int, event: dict[str, Any]) -> None:
        kind = event["type"].removeprefix("response.")
        assert event["sequence_number"] == number
        assert not self.terminal, "something follows the last event"
        if number < 2:
            assert kind == ("created", "in_progress")[number]
            assert event["response"]["status"] == "in_progress" and event["response"]["output"] == []
            return
        if kind in ("completed", "incomplete", "failed"):
            self.terminal, self.response = kind, event["response"]
            return
        index = event["output_index"]
        if kind == "output_item.added":
            assert index == len(self.items), "items are numbered in the order they come"
            self.items[index] = event["item"]
            assert event["item"]["status"] == "in_progress"
            return
        item = self.items[index]
        assert index not in self.done, "an item that is done grows"
        if kind == "output_item.done":
            assert self.part is None or item["type"] == "function_call"
            assert event["item"]["id"] == item["id"]
            self.done[index] = event["item"]
            return
        assert event["item_id"] == item["id"]
        if item["type"] == "function_call":
            self.see_call(kind, item, event)
        else:
            self.see_part(kind, item, event)

    def see_call(self, kind: str, item: dict[str, Any], event: dict[str, Any]) -> None:
        if kind == "function_call_arguments.delta":
            item["arguments"] += event["delta"]
        else:
            assert kind == "function_call_arguments.done"
            assert event["arguments"] == item["arguments"]

    def see_part(self, kind: str, item: dict[str, Any], event: dict[str, Any]) -> None:
        holder, place = ("summary", "summary_index") if "summary" in kind else ("content", "content_index")
        if kind.endswith("_part.added"):
            assert self.part is None and event[place] == len(item.get(holder, []))
            self.part = dict(event["part"])
            return
        assert self.part is not None, "text outside of a part"
        member = "refusal" if self.part["type"] == "refusal" else "text"
        assert kind.startswith((self.part["type"], "content_part", "reasoning_summary"))
        if kind.endswith(".delta"):
            self.part[member] += event["delta"]
            if member == "text" and self.part["type"] == "output_text":
                self.part["logprobs"] = self.part["logprobs"] + event["logprobs"]
        elif kind.endswith("_part.done"):
            assert event["part"] == self.part
            item.setdefault(holder, []).append(self.part)
            self.part = None
        else:
            assert kind.endswith(".done") and event[member] == self.part[member]


def checked(written: bytes) -> Checker:
    checker = Checker()
    for number, block in enumerate(written.decode().removesuffix("\n\n").split("\n\n")):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        checker.see(number, event)
    assert checker.terminal
    return checker


def carried(events: list[Event]) -> tuple[list[Any], Any, Usage]:
    """(what is told in its order, neighbours joined; the end; the last usage) of the one choice of this protocol."""
    told: list[Any] = []
    finish, usage, thought_ended = None, Usage(), False
    for event in events:
        if isinstance(event, UsageReport):
            usage = event.usage
        if getattr(event, "index", 1) != 0:
            continue
        if isinstance(event, Finished):
            finish = event.reason
        elif isinstance(event, ToolCallDelta):
            key = ("call", event.call)
            if not any(row[0] == key for row in told) or event.arguments:
                told = joined(told, key, event.arguments)
        elif isinstance(event, TextDelta):
            if event.text or event.logprobs:
                told = joined(told, type(event).__name__, event.text)
        elif isinstance(event, ReasoningDelta):
            if event.text:
                told = joined(told, type(event).__name__, event.text, apart=thought_ended)
                thought_ended = False
            if event.signature or event.encrypted:
                told.append(["proof", event.signature, event.encrypted])
                thought_ended = True
    return told, finish, usage


def joined(told: list[Any], key: Any, text: str, *, apart: bool = False) -> list[Any]:
    if told and told[-1][0] == key and not apart:
        return [*told[:-1], [key, told[-1][1] + text]]
    return [*told, [key, text]]


def renumbered(told: list[Any]) -> list[Any]:
    """Calls by the order in which they first came, as a stream of items has them."""
    numbers: dict[Any, int] = {}
    return [
        [("call", numbers.setdefault(key, len(numbers))), *rest] if isinstance(key, tuple) else [key, *rest]
        for key, *rest in told
    ]


@given(events=answers())
@example(events=[SummaryDelta("a"), ReasoningDelta("b"), SummaryDelta("c"), Finished(FinishReason.STOP)])
@settings(max_examples=400, deadline=None)
def test_every_order_of_events_is_written_legally_and_read_back(events: list[Event]) -> None:
    request = decoded()
    writer = RESPONSES.stream_writer(request, "resp_1", 1)
    written = b"".join([writer.feed(event) for event in events]) + writer.close()
    checker = checked(written)
    output = checker.response["output"]
    assert output == [checker.done[index] for index in range(len(checker.items))]
    assert len({item["id"] for item in output}) == len(output)
    told, finish, usage = carried(events)
    assert checker.terminal == {"length": "incomplete", "content_filter": "incomplete"}.get(finish, "completed")
    whole = RESPONSES.encode_response(request, events, "resp_1", 1)
    assert json.loads(whole) == checker.response
    reader = RESPONSES.stream_reader()
    told_again, finish_again, usage_again = carried(reader.feed(written) + reader.close())
    assert told_again == renumbered(told)
    assert usage_again == Usage(usage.input, usage.cached_input, usage.cache_write, usage.output, usage.reasoning)
    called = any(isinstance(key, tuple) for key, *_ in told)
    assert finish_again == (finish if checker.terminal == "incomplete" else "tool_calls" if called else "stop")


@given(events=answers(), at=st.integers(0, 16))
@settings(max_examples=200, deadline=None)
def test_a_stream_may_fail_anywhere(events: list[Event], at: int) -> None:
    writer: Any = RESPONSES.stream_writer(decoded(), "resp_1", 1)
    written = b"".join([writer.feed(event) for event in events[:at]])
    checker = checked(written + writer.fail(UpstreamTimeout("Too slow.")) + writer.close())
    assert checker.terminal == "failed"
    assert checker.response["error"] == {"code": "upstream_timeout", "message": "Too slow."}
    assert len(checker.response["output"]) == len(checker.items)
    assert all(item["status"] in ("completed", "incomplete") for item in checker.response["output"])


def test_a_signature_comes_back_with_the_item_that_carried_it() -> None:
    request = decoded()
    events: list[Event] = [
        ReasoningDelta("Hm."),
        ReasoningDelta("", signature="s1"),
        TextDelta("Hi"),
        Finished(FinishReason.STOP),
    ]
    answer = json.loads(RESPONSES.encode_response(request, events, "resp_1", 1))
    again = decoded(input=[{"role": "user", "content": "Hi"}, *answer["output"], {"role": "user", "content": "And?"}])
    assert conversation(again).messages[1].parts == [Thinking("Hm.", signature="s1", id="rs_1_0"), Text("Hi")]
    assert b"s1" not in RESPONSES.rewrite_request(again, "m")


def test_reasoning_messages_and_calls_of_a_turn_are_one_message() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    thought = {"type": "reasoning", "summary": []}
    said = {"role": "assistant", "content": "a"}
    result = {"type": "function_call_output", "call_id": "c", "output": "x"}
    task = conversation(
        decoded(input=[thought, said, call, {**call, "call_id": "d"}, result, thought, said, thought, said])
    )
    assert [[type(part) for part in message.parts] for message in task.messages] == [
        [Thinking, Text, ToolCall, ToolCall],
        [type(task.messages[1].parts[0])],
        [Thinking, Text],
        [Thinking, Text],
    ]


def test_content_held_elsewhere_is_foreign_to_every_other_protocol() -> None:
    request = decoded(previous_response_id="resp_0", conversation={"id": "conv_1"})
    sent = json.loads(RESPONSES.encode_request(request, "m", stream=False))
    assert (sent["previous_response_id"], sent["conversation"]) == ("resp_0", {"id": "conv_1"})
    with pytest.raises(InvalidRequest, match="previous_response_id"):
        codec("openai_chat").encode_request(request, "m", stream=False)


def test_allowed_tools_leave_the_others_out() -> None:
    tools = [{"type": "function", "name": name} for name in ("a", "b")]
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]}
    request = decoded(tools=tools, tool_choice=choice)
    assert conversation(request).tool_choice == ToolChoice(ToolMode.REQUIRED)
    sent = json.loads(codec("openai_chat").encode_request(request, "m", stream=False))
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["b"]
    echoed = json.loads(RESPONSES.encode_response(request, [], "resp_1", 1))
    assert ([tool["name"] for tool in echoed["tools"]], echoed["tool_choice"]) == (["a", "b"], choice)
    with pytest.raises(InvalidRequest, match="'c'"):
        decoded(tools=tools, tool_choice={**choice, "tools": [{"type": "function", "name": "c"}]})


def test_what_has_no_effect_is_reported() -> None:
    request = decoded(
        truncation="auto", text={"verbosity": "low"}, reasoning={"summary": "auto"}, user="u", background=True, wat=1
    )
    assert request.ignored == ["reasoning.summary", "text.verbosity", "truncation", "user", "wat"]


def test_a_caller_of_another_protocol_is_refused_by_name_or_told() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"seed":1,"max_tokens":5'
    request = codec("openai_chat").decode_request(body + b"}")
    RESPONSES.encode_request(request, "m", stream=False)
    assert request.ignored == ["seed"]
    for member, param in ((b',"n":2', "n"), (b',"stop":"x"', "stop"), (b',"top_k":3', "top_k")):
        with pytest.raises(InvalidRequest) as raised:
            RESPONSES.encode_request(codec("openai_chat").decode_request(body + member + b"}"), "m", stream=False)
        assert raised.value.param == param
    foreign = Message(Role.USER, [Foreign("openai_chat", "input_audio", b"{}")])
    with pytest.raises(InvalidRequest, match="input_audio"):
        RESPONSES.encode_request(Request("m", Conversation([foreign]), "openai_chat"), "m", stream=False)


def test_a_relay_ends_only_what_was_finished() -> None:
    head = b'data: {"type":"response.created","sequence_number":0,'
    begun = head + b'"response":{"id":"resp_9","model":"x","output":[]}}\n\n'
    relay: Any = RESPONSES.passthrough(decoded(stream=True), Observation())
    assert relay.feed(begun) == b"event: response.created\n" + begun
    with pytest.raises(UpstreamBroken):
        relay.close()
    failed = checked_failure(relay.fail(UpstreamBroken("It was cut.")))
    assert (failed["id"], failed["status"], failed["error"]["message"]) == ("resp_9", "failed", "It was cut.")
    silent: Any = RESPONSES.passthrough(decoded(stream=True), Observation())
    assert silent.fail(UpstreamBroken("It was cut.")).startswith(b'event: error\ndata: {"type":"error"')


def checked_failure(written: bytes) -> dict[str, Any]:
    name, data = written.decode().strip().split("\n")
    assert name == "event: response.failed"
    response: dict[str, Any] = json.loads(data.removeprefix("data: "))["response"]
    return response


def test_a_stored_response_is_continued_with_all_that_was_said() -> None:
    tools = [{"type": "function", "name": "f"}]
    first = decoded(input="What time?", tools=tools, instructions="Be exact.")
    events: list[Event] = [ToolCallDelta(0, '{"zone" : 1e2}', "call_a", "f"), Finished(FinishReason.TOOL_CALLS)]
    body = RESPONSES.encode_response(first, events, "resp_1", 7)
    one = stored_response(first, completed(body, 9))
    assert (one.id, one.created_at, one.status, one.previous_response_id) == ("resp_1", 7, "completed", None)
    assert json.loads(one.body)["completed_at"] == 9
    result = {"type": "function_call_output", "call_id": "call_a", "output": "noon"}
    second = decoded(input=[result], previous_response_id="resp_1", tools=tools)
    together = continue_from(second, history([one]))
    question, call, answer = conversation(together).messages
    assert question.parts == [Text("What time?")]
    assert call.parts == [ToolCall("call_a", "f", '{"zone" : 1e2}')]
    assert answer.role is Role.TOOL
    assert b"previous_response_id" not in together.body
    echoed = RESPONSES.encode_response(together, [TextDelta("Noon."), Finished(FinishReason.STOP)], "resp_2", 8)
    assert json.loads(echoed)["previous_response_id"] == "resp_1"
    two = stored_response(second, echoed)
    third = continue_from(decoded(input="Thanks", previous_response_id="resp_2"), history([one, two]))
    assert [message.role for message in conversation(third).messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]


def test_listed_input_items_have_ids_and_types() -> None:
    listed = [json.loads(item) for item in input_items(decoded(input="Hi"), "resp_1")]
    text = {"type": "input_text", "text": "Hi"}
    assert listed == [{"id": "msg_1_in0", "type": "message", "role": "user", "content": [text], "status": "completed"}]
    kept = {"type": "function_call", "id": "fc_x", "call_id": "c", "name": "f", "arguments": "{}"}
    assert json.loads(input_items(decoded(input=[kept]), "resp_1")[0]) == {**kept, "status": "completed"}


MEMBERS = st.sampled_from(
    ["type", "role", "content", "text", "name", "output", "summary", "call_id", "arguments", "tools"]
)
KINDS = st.sampled_from(["message", "function_call", "function_call_output", "reasoning", "input_text", "user"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner | KINDS, max_size=5),
    max_leaves=12,
)


@given(
    member=st.sampled_from(
        [
            "input",
            "tools",
            "tool_choice",
            "text",
            "reasoning",
            "include",
            "instructions",
            "prompt",
            "metadata",
            "stream",
        ]
    ),
    value=JSON,
)
@settings(max_examples=500, deadline=None)
def test_no_member_raises_anything_but_a_named_error(member: str, value: Any) -> None:
    try:
        request = decoded(**{member: value})
        RESPONSES.encode_request(request, "m", stream=False)
        json.loads(RESPONSES.encode_response(request, [], "resp_1", 1))
        codec("openai_chat").encode_request(request, "m", stream=False)
    except TokenworksError as error:
        assert error.status == 400
        assert error.param
