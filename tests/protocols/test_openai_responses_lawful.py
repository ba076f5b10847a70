"""Streams of responses with what hosts leave out or change: passed on, the official helper reads every one of them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from tests.protocols.test_openai_responses import answers, checked, decoded

from tokenworks.core.errors import UpstreamBroken
from tokenworks.core.events import Event, Finished, FinishReason, ReasoningDelta, Started, TextDelta, ToolCallDelta
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation

RESPONSES = codec("openai_responses")

Told = list[dict[str, Any]]

SAID: list[Event] = [
    Started("up", "model-1"),
    ReasoningDelta("hm"),
    TextDelta("Hel"),
    TextDelta("lo"),
    ToolCallDelta(0, '{"a"', "call_1", "f"),
    ToolCallDelta(0, ":1}"),
    ToolCallDelta(1, "{}", "call_2", "g"),
    Finished(FinishReason.STOP),
]


def written(events: list[Event]) -> Told:
    writer = RESPONSES.stream_writer(decoded(), "resp_up", 1)
    return read(b"".join([writer.feed(event) for event in events]) + writer.close())


def read(stream: bytes) -> Told:
    return [json.loads(block.partition(b"data: ")[2]) for block in stream.split(b"\n\n") if block]


def passed(told: Told) -> bytes:
    relay: Any = RESPONSES.passthrough(decoded(), Observation())
    relay.rename("resp_ours")
    stream = b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in told)
    out: bytes = relay.feed(stream) + relay.close()
    assert relay.final and json.loads(relay.final)["id"] == "resp_ours"
    return out


def helped(stream: bytes) -> Any:
    """The response that the official helper comes to, and each event given to its state machine."""
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    told = read(stream)
    for number, event in enumerate(told):
        assert event["sequence_number"] == number
        state.handle_event(construct_type(type_=ResponseStreamEvent, value=event))
    return told[-1]["response"]


def said(response: Any) -> list[Any]:
    return [
        (item["type"], item.get("name"), item.get("arguments"), *[part.get("text") for part in item.get("content", ())])
        for item in response["output"]
    ]


def without(*kinds: str) -> Callable[[Told], Told]:
    return lambda told: [event for event in told if event["type"].removeprefix("response.") not in kinds]


def changed(kind: str, **members: Any) -> Callable[[Told], Told]:
    """Of the item in each event of a kind."""

    def change(told: Told) -> Told:
        for event in told:
            if event["type"] == f"response.{kind}":
                event["item"] |= members
        return told

    return change


def ended(**members: Any) -> Callable[[Told], Told]:
    def change(told: Told) -> Told:
        told[-1]["response"] |= members
        return told

    return change


def items(event: dict[str, Any]) -> list[dict[str, Any]]:
    return [*([event["item"]] if "item" in event else []), *(event.get("response", {}).get("output") or ())]


def same_ids(told: Told) -> Told:
    for event in told:
        for item in items(event):
            item["id"] = "one"
    return told


def without_ids(told: Told) -> Told:
    for event in told:
        event.pop("item_id", None)
        for item in items(event):
            item.pop("id", None)
    return told


FAULTS: dict[str, Callable[[Told], Told]] = {
    "no beginning": without("created", "in_progress"),
    "no response.created": without("created"),
    "no items": without("output_item.added"),
    "no ends of items": without("output_item.done"),
    "neither": without("output_item.added", "output_item.done"),
    "no parts": without("content_part.added"),
    "neither items nor parts": without("output_item.added", "content_part.added"),
    "beginnings twice": lambda told: [
        event for each in told for event in [each] * (1 + each["type"].endswith(("item.added", "part.added")))
    ],
    "other ids at the end": changed("output_item.done", id="other"),
    "another call at the end": changed("output_item.done", call_id="other"),
    "one id for all": same_ids,
    "no ids": without_ids,
    "nothing in the final response": ended(output=[]),
    "no output in the final response": ended(output=None),
    "neither ends nor output": lambda told: ended(output=[])(without("output_item.done")(told)),
    "only deltas and the end": without("created", "in_progress", "output_item.added", "content_part.added"),
    "no numbers": lambda told: [
        {name: value for name, value in event.items() if name != "sequence_number"} for event in told
    ],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_a_host_breaks_the_helper(fault: str) -> None:
    response = helped(passed(FAULTS[fault](written(SAID))))
    if fault != "neither ends nor output":  # then nobody ever told the whole of it
        assert said(response) == said(written(SAID)[-1]["response"])
    assert response["id"] == "resp_ours"


@given(events=answers(), faults=st.lists(st.sampled_from(sorted(FAULTS)), max_size=3))
@settings(max_examples=150, deadline=None)
def test_nor_do_several_in_any_stream(events: list[Event], faults: list[str]) -> None:
    told = written(events)
    for fault in faults:
        told = FAULTS[fault](json.loads(json.dumps(told)))
    response = helped(passed(told))
    assert response["status"] == told[-1]["response"]["status"]


@given(events=answers())
@settings(max_examples=50, deadline=None)
def test_a_lawful_stream_stays_as_it_is(events: list[Event]) -> None:
    told = written(events)
    stream = passed(told)
    checked(stream)
    for before, after in zip(told, read(stream), strict=True):
        assert {**before, "response": None} == {**after, "response": None}


def test_a_part_far_from_the_others_is_a_garbled_stream() -> None:
    told = written([TextDelta("a"), Finished(FinishReason.STOP)])
    for event in told:
        if "content_index" in event:
            event["content_index"] = 2**60
    with pytest.raises(UpstreamBroken, match="garbled"):
        passed(told)


def test_content_in_an_item_of_another_type_is_a_garbled_stream() -> None:
    told = written([TextDelta("a"), Finished(FinishReason.STOP)])
    told[2]["item"]["type"] = "function_call"
    with pytest.raises(UpstreamBroken, match="garbled"):
        passed(told)
