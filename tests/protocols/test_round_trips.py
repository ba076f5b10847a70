"""Neutral -> protocol -> neutral loses nothing that the protocol claims to carry; what it does not carry it refuses by
name, or `carried.lost` says so. The same of answers: a stream folded says what the whole answer says, usage too.
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from tokenworks.core.messages import (
    Image,
    Message,
    Part,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
)
from tokenworks.core.request import Conversation, Prompts, Reasoning, Request, ResponseFormat, Sampling
from tokenworks.core.usage import Usage
from tokenworks.protocols import codec
from tokenworks.protocols.carried import carried, lost

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
NAME = st.text("abcdef_", min_size=1, max_size=6)
IMAGES = [Image(url="https://x/y.png"), Image(data="aGk=", media_type="image/png")]
ARGUMENTS = st.sampled_from(["{}", '{"a": 1}', '{"b":"ü",  "c": [1e0, null]}', '{"\\u00e9": {"x": ""}}'])
"""Objects, written in ways that a serialiser would not choose."""


def optional(strategy: Any) -> Any:
    return st.none() | strategy


SAMPLINGS = st.builds(
    Sampling,
    temperature=optional(st.floats(0.1, 1)),
    top_p=optional(st.floats(0.01, 0.99)),
    top_k=optional(st.integers(1, 50)),
    min_p=optional(st.floats(0.01, 1)),
    typical_p=optional(st.floats(0.01, 0.99)),
    frequency_penalty=optional(st.floats(-2, 2)),
    presence_penalty=optional(st.floats(-2, 2)),
    repetition_penalty=optional(st.floats(1.01, 2)),  # one is none
    seed=optional(st.integers(0, 2**31)),
    stop=st.lists(st.text("xyz", min_size=1, max_size=3), max_size=3),
    logit_bias=st.dictionaries(st.integers(0, 99).map(str), st.floats(-100, 100), max_size=2),
    ignore_eos=st.booleans(),
    min_tokens=optional(st.integers(0, 9)),
)
ASKED = {
    "max_output_tokens": optional(st.integers(1, 999)),
    "n": st.integers(1, 3),
    "logprobs": st.booleans(),
    "stream": st.booleans(),
    "response_format": optional(st.builds(ResponseFormat, schema=st.just({"type": "object"}), name=NAME)),
    "reasoning": optional(st.builds(Reasoning, effort=st.sampled_from(["low", "medium", "high"]))),
}


@st.composite
def turns(draw: st.DrawFn) -> list[Message]:
    """User, assistant (reasoning, text, calls in this order), the results of its calls, and again."""
    messages = [Message(Role.SYSTEM, [Text(draw(TEXT))])] if draw(st.booleans()) else []
    calls = 0
    for _ in range(draw(st.integers(1, 3))):
        shown: list[Part] = [Text(draw(TEXT))]
        if draw(st.integers(0, 3)) == 0:
            shown.append(draw(st.sampled_from(IMAGES)))
        messages.append(Message(Role.USER, shown))
        said: list[Part] = []
        if draw(st.booleans()):
            said.append(Thinking(draw(TEXT), signature="c2ln"))
        said.append(Text(draw(TEXT)))
        made = [ToolCall(f"call_{calls + i}", draw(NAME), draw(ARGUMENTS)) for i in range(draw(st.integers(0, 2)))]
        calls += len(made)
        messages.append(Message(Role.ASSISTANT, [*said, *made]))
        messages += [Message(Role.TOOL, [ToolResult(call.id, [Text(draw(TEXT))])]) for call in made]
    return [*messages, Message(Role.USER, [Text(draw(TEXT))])]


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    names = draw(st.lists(NAME, unique=True, max_size=2))
    tools: list[Any] = [Tool(name, draw(optional(TEXT)), {"type": "object", "properties": {}}) for name in names]
    choices = [None, ToolChoice(), ToolChoice(ToolMode.NONE)]
    if names:
        choices += [ToolChoice(ToolMode.REQUIRED), ToolChoice(ToolMode.REQUIRED, names[0])]
    return Conversation(draw(turns()), tools, draw(st.sampled_from(choices)))


@st.composite
def requests(draw: st.DrawFn, task: Any) -> Request:
    members = {name: draw(values) for name, values in ASKED.items()}
    return Request("m", draw(task), protocol="", sampling=draw(SAMPLINGS), **members)


def plain(messages: list[Message], protocol: str) -> list[Message]:
    """As the protocol has it: only one knows signatures, and it has the results of tools in the user's messages."""
    if protocol != "anthropic_messages":
        return [Message(message.role, [_unsigned(part) for part in message.parts]) for message in messages]
    found: list[Message] = []
    for message in messages:
        role = Role.USER if message.role is Role.TOOL else message.role
        if found and found[-1].role is role:
            found[-1].parts += message.parts
        else:
            found.append(Message(role, list(message.parts)))
    return found


def _unsigned(part: Part) -> Part:
    return replace(part, signature=None) if isinstance(part, Thinking) else part


def trimmed(request: Request, protocol: str) -> Request:
    """Without what is refused by name, one after the other: that each is named is what this shows."""
    for _ in range(30):
        try:
            codec(protocol).encode_request(request, "m", stream=request.stream)
            return request
        except InvalidRequest as error:
            assert error.param, error.message
            request = without(request, error.param)
    raise AssertionError("it is refused for ever")


def without(request: Request, param: str) -> Request:
    field = {"grammar": "response_format"}.get(param, param.partition(".")[0].partition("[")[0])
    plain_sampling = Sampling()
    if hasattr(plain_sampling, field):
        return replace(request, sampling=replace(request.sampling, **{field: getattr(plain_sampling, field)}))
    empty = Request("m", request.task, protocol="")
    assert hasattr(empty, field), f"{param} is nothing that we asked for"
    return replace(request, **{field: getattr(empty, field)})


@pytest.mark.parametrize("protocol", ["openai_chat", "openai_responses", "anthropic_messages"])
@given(request=requests(conversations()))
@settings(max_examples=60, deadline=None)
def test_conversations(protocol: str, request: Request) -> None:
    spoken = codec(protocol)
    asked = trimmed(request, protocol)
    again = spoken.decode_request(spoken.encode_request(asked, "m", stream=asked.stream))
    assert isinstance(asked.task, Conversation) and isinstance(again.task, Conversation)
    assert plain(again.task.messages, protocol) == plain(asked.task.messages, protocol)
    # Where tools are strict unless told otherwise, they are told.
    assert [replace(t, strict=t.strict or None) for t in again.task.tools if isinstance(t, Tool)] == asked.task.tools
    if asked.task.tools or protocol != "anthropic_messages":  # there a choice without tools is none
        assert again.task.tool_choice == asked.task.tool_choice
    agrees(asked, again, protocol)


@pytest.mark.parametrize("protocol", ["openai_completions", "tgi"])
@given(request=requests(st.builds(Prompts, st.lists(TEXT, min_size=1, max_size=1))))
@settings(max_examples=60, deadline=None)
def test_prompts(protocol: str, request: Request) -> None:
    spoken = codec(protocol)
    asked = trimmed(request, protocol)
    again = spoken.decode_request(spoken.encode_request(asked, "m", stream=asked.stream))
    assert again.task == asked.task
    agrees(asked, again, protocol)


def agrees(asked: Request, again: Request, protocol: str) -> None:
    """What is neither there again nor refused is said to be lost."""
    missing = lost(replace(asked, body=b""), codec(protocol))
    known = carried(codec(protocol), type(asked.task))
    for field in (*Sampling.__dataclass_fields__, *ASKED):
        before, after = (
            getattr(each.sampling, field) if hasattr(each.sampling, field) else getattr(each, field)
            for each in (asked, again)
        )
        if field in missing:
            assert field not in known
        elif field == "stream" or before not in (None, [], {}, False):
            assert _same(after, before), field


def _same(after: Any, before: Any) -> bool:
    """What has no place for a schema's name, and says on its own that effort means to think, says the same."""
    if isinstance(before, ResponseFormat):
        return bool(after.schema == before.schema)
    return bool(after.effort == before.effort) if isinstance(before, Reasoning) else bool(after == before)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Reasoning, text, calls: the order in which every protocol can show them."""
    events: list[Event] = [Started("id", "m")]
    events += [ReasoningDelta(text) for text in draw(st.lists(TEXT, max_size=2))]
    events += [TextDelta(text) for text in draw(st.lists(TEXT, max_size=3))]
    for call in range(draw(st.integers(0, 2))):
        arguments = draw(ARGUMENTS)
        events.append(ToolCallDelta(call, arguments[:3], f"call_{call}", draw(NAME)))
        events.append(ToolCallDelta(call, arguments[3:]))
    called = any(isinstance(event, ToolCallDelta) for event in events)
    events.append(
        Finished(FinishReason.TOOL_CALLS if called else draw(st.sampled_from([FinishReason.STOP, FinishReason.LENGTH])))
    )
    output = draw(st.integers(0, 999))
    usage = Usage(draw(st.integers(0, 999)), draw(st.integers(0, 99)), draw(st.integers(0, 99)), output)
    return [*events, UsageReport(replace(usage, reasoning=draw(st.integers(0, output))))]


def told(events: list[Event]) -> dict[str, Any]:
    said: dict[str, Any] = {"text": "", "thoughts": "", "calls": {}, "end": None, "usage": None}
    for event in events:
        match event:
            case TextDelta():
                said["text"] += event.text
            case ReasoningDelta():
                said["thoughts"] += event.text
            case ToolCallDelta():
                call = said["calls"].setdefault(event.call, [event.id, event.name, ""])
                call[2] += event.arguments
            case Finished():
                said["end"] = event.reason
            case UsageReport():
                said["usage"] = event.usage
    said["calls"] = list(said["calls"].values())
    return said


@pytest.mark.parametrize("protocol", ["openai_chat", "openai_responses", "anthropic_messages"])
@given(events=answers())
@settings(max_examples=60, deadline=None)
def test_answers(protocol: str, events: list[Event]) -> None:
    spoken = codec(protocol)
    asked = Request("m", Conversation([Message(Role.USER, [Text("x")])]), protocol, max_output_tokens=9)
    request = spoken.decode_request(spoken.encode_request(asked, "m", stream=False))
    request.include_usage = True
    writer = spoken.stream_writer(request, spoken.response_id("1"), 1)
    stream = b"".join([writer.feed(event) for event in events]) + writer.close()
    reader = spoken.stream_reader()
    streamed = told(reader.feed(stream) + reader.close())
    whole = told(spoken.read_response(spoken.encode_response(request, events, spoken.response_id("1"), 1)))
    assert streamed == whole == told(events)
