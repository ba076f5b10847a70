"""Chunks of hosts that leave out, or count otherwise, what the official helper needs, passed on and translated: its own
state machine reads all of them, and no call's arguments become part of another's."""

import copy
import json
import warnings
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._models import construct_type
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from tokenworks.core.errors import UpstreamBroken
from tokenworks.core.events import ToolCallDelta
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation

CHAT = codec("openai_chat")
HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}

Calls = list[tuple[str, str, str]]
"""(id, name, arguments)"""


def asked(**members: Any) -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True, **members}
    return CHAT.decode_request(json.dumps(body | {"stream_options": {"include_usage": True}}).encode())


def chunk(delta: Any, finish: str | None = None, **choice: Any) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **choice}]}


def part(text: str, **members: Any) -> dict[str, Any]:
    function = {"arguments": text} | ({"name": members.pop("name")} if "name" in members else {})
    return {"type": "function", "function": function, **members}


def calling(*parts: dict[str, Any]) -> dict[str, Any]:
    return chunk({"tool_calls": list(parts)})


TEXT, END, CALLED = chunk({"role": "assistant", "content": "a"}), chunk({}, "stop"), chunk({}, "tool_calls")
TOLD = {**HEAD, "choices": [], "usage": USAGE}
TWO: Calls = [("c1", "f", '{"a":1}'), ("c2", "g", '{"b":2}')]
FIRST, SECOND = part('{"a":1}', id="c1", name="f"), part('{"b":2}', id="c2", name="g")


def sent(chunks: Iterable[Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in chunks) + b"data: [DONE]\n\n"


def helped(stream: bytes) -> Any:
    """What the official helper makes of it."""
    state: Any = ChatCompletionStreamState()
    for block in stream.split(b"\n\n"):
        if block.startswith(b"data: {"):
            value = json.loads(block[6:])
            assert value["object"] == HEAD["object"] and {"id", "created", "model", "choices"} <= value.keys()
            list(state.handle_chunk(construct_type(type_=ChatCompletionChunk, value=value)))
    with warnings.catch_warnings(action="ignore"):
        return state.get_final_completion()


def passed(stream: bytes, request: Request) -> bytes:
    relay = CHAT.passthrough(request, Observation())
    return relay.feed(stream) + relay.close()


def translated(stream: bytes, request: Request) -> bytes:
    reader, writer = CHAT.stream_reader(), CHAT.stream_writer(request, "c", 1)
    events = reader.feed(stream) + reader.close()
    for event in events:
        if isinstance(event, ToolCallDelta):
            assert event.name != "", "the name comes with a call's first part only"
    return b"".join([writer.feed(event) for event in events]) + writer.close()


WAYS = [passed, translated]


def calls_of(choice: Any) -> Calls:
    return [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls or []]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "chunks",
    [
        [TEXT, END, {**TOLD, "choices": None}],
        [TEXT, END, {name: value for name, value in TOLD.items() if name != "choices"}],
        [{**HEAD, "id": "", "model": "", "object": "", "choices": [], "prompt_filter_results": []}, TEXT, END],
        [{"choices": TEXT["choices"]}, {"choices": END["choices"]}],
        [TEXT, {**HEAD, "choices": [{"finish_reason": "stop"}]}],
        [TEXT, chunk(None, "stop")],
        [{**HEAD, "choices": [{"delta": {"content": "a"}}]}, END],
        [{**HEAD, "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}],
    ],
)
def test_what_a_host_leaves_out_is_there(way: Any, chunks: list[Any]) -> None:
    assert helped(way(sent(chunks), asked())).choices[0].message.content == "a"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "chunks",
    [
        [calling({**FIRST, "index": 0}, {**SECOND, "index": 1})],
        [calling(FIRST, SECOND)],
        [calling(FIRST), calling(SECOND)],
        [calling({**FIRST, "index": 0}), calling({**SECOND, "index": 0})],
        [calling({**FIRST, "index": 1}), calling({**SECOND, "index": 2})],
        [calling({**FIRST, "index": 0}), calling({**SECOND, "index": 7}, {"index": 0})],
        [
            calling(part('{"a":', id="c1", name="f")),
            calling(part("1}", id="c1", name="f")),
            calling(part('{"b":', id="c2", name="g")),
            calling(part("2}")),
        ],
        [
            calling(part("", id="c1", name="f", index=0)),
            calling(part('{"a":1}', id="c1", name="f", index=0)),
            calling(part("", id="c2", name="g", index=0)),
            calling(part('{"b":', id="c9", index=0), part("2}", index=0)),
        ],
    ],
)
def test_no_calls_become_one(way: Any, chunks: list[Any]) -> None:
    assert calls_of(helped(way(sent([TEXT, *chunks, CALLED, TOLD]), asked())).choices[0]) == TWO


@pytest.mark.parametrize("way", WAYS)
def test_choices_may_begin_in_any_order(way: Any) -> None:
    texts = [chunk({"content": text}, index=index) for index, text in ((2, "c"), (0, "a"), (1, "b"), (2, "C"))]
    ends = [chunk({}, "stop", index=index) for index in (1, 2, 0)]
    answer = helped(way(sent([*texts, *ends]), asked(n=3)))
    assert [choice.message.content for choice in answer.choices] == ["a", "b", "cC"]


@pytest.mark.parametrize("way", WAYS)
def test_pieces_of_reasoning_need_no_number(way: Any) -> None:
    pieces = [[{"type": "reasoning.text", "text": "h"}], [{"type": "reasoning.text", "text": "m", "signature": "s"}]]
    thoughts = [chunk({"reasoning_details": piece}) for piece in pieces]
    message = helped(way(sent([*thoughts, TEXT, END]), asked())).choices[0].message
    assert message.content == "a"
    [told] = message.reasoning_details
    assert (told["text"], told["signature"]) == ("hm", "s")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("index", [-1, 128, 2**60])
def test_a_choice_that_nobody_asked_for_is_a_garbled_stream(way: Any, index: int) -> None:
    with pytest.raises(UpstreamBroken, match="garbled"):
        way(sent([TEXT, chunk({"content": "a"}, index=index), END]), asked())


def test_usage_that_a_host_does_not_tell_is_counted_for_who_asked_for_it() -> None:
    seen = Observation(estimate=lambda: Usage(input=3, output=4))
    relay = CHAT.passthrough(asked(), seen)
    answer = helped(relay.feed(sent([TEXT, END])) + relay.close())
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 4)
    assert seen.usage is None, "the meter counts for itself"


def test_what_has_everything_passes_to_the_byte() -> None:
    stream = sent([TEXT, calling({**FIRST, "index": 0}), calling({"index": 0, "function": {"arguments": ""}}), CALLED])
    assert passed(stream, asked()) == stream


OPTIONAL = ("id", "object", "created", "model")


@pytest.mark.parametrize("way", WAYS)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_of_it_may_be_missing(way: Any, data: st.DataObject) -> None:
    """Calls one after the other, in pieces, counted in any of the ways in which hosts do."""
    calls = [(f"c{n}", f"f{n}", data.draw(st.sampled_from(["", "{}", '{"a": "é"}']))) for n in range(3)]
    calls = calls[: data.draw(st.integers(0, 3))]
    how = data.draw(st.sampled_from(["counted", "all zero", "not counted", "from one"]))
    repeated = data.draw(st.booleans())
    chunks = [TEXT]
    for number, (its_id, name, text) in enumerate(calls):
        counted = {"counted": {"index": number}, "all zero": {"index": 0}, "from one": {"index": number + 1}}
        place = counted.get(how, {})
        cut = data.draw(st.integers(0, len(text)))
        again = {"id": its_id, "name": name} if repeated else {}
        chunks.append(calling(part(text[:cut], id=its_id, name=name, **place)))
        chunks.append(calling(part(text[cut:], **again, **place)))
    chunks = copy.deepcopy([*chunks, CALLED if calls else END, TOLD])
    for each in chunks:
        for name in data.draw(st.sets(st.sampled_from(OPTIONAL))):
            del each[name]
        for choice in each["choices"]:
            if data.draw(st.booleans()):
                del choice["index"]
            if not choice["delta"] and data.draw(st.booleans()):
                del choice["delta"]
    answer = helped(way(sent(chunks), asked()))
    assert calls_of(answer.choices[0]) == calls
    assert answer.choices[0].message.content == "a" and answer.usage.total_tokens == 2
