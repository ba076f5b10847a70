"""Streams of Messages with what hosts leave out: passed on, the official helper reads every one of them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from anthropic._models import construct_type
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.core.errors import UpstreamBroken
from tokenworks.core.events import Event, Finished, FinishReason, ReasoningDelta, Started, TextDelta, ToolCallDelta
from tokenworks.core.request import Request
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation

MESSAGES = codec("anthropic_messages")

Told = list[dict[str, Any]]

SAID: list[Event] = [
    Started("up", "model-1"),
    ReasoningDelta("hm"),
    ReasoningDelta("", signature="c2ln"),
    TextDelta("Hel"),
    TextDelta("lo"),
    ToolCallDelta(0, '{"a"', "call_1", "f"),
    ToolCallDelta(0, ":1}"),
    Finished(FinishReason.TOOL_CALLS),
]


def asked() -> Request:
    body = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "x"}]}
    return MESSAGES.decode_request(json.dumps(body).encode())


def written(events: list[Event]) -> Told:
    writer = MESSAGES.stream_writer(asked(), "msg_1", 1)
    return read(b"".join([writer.feed(event) for event in events]) + writer.close())


def read(stream: bytes) -> Told:
    return [json.loads(block.partition(b"data: ")[2]) for block in stream.split(b"\n\n") if block]


def passed(told: Told) -> bytes:
    relay = MESSAGES.passthrough(asked(), Observation())
    stream = b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in told)
    return relay.feed(stream) + relay.close()


def helped(stream: bytes) -> Any:
    """The message that the official helper comes to."""
    message: Any = None
    inputs: dict[int, bytes] = {}
    for event in read(stream):
        built: Any = construct_type(type_=RawMessageStreamEvent, value=event)
        message = accumulate_event(event=built, current_snapshot=message, json_bufs=inputs)
    return message


def without(*kinds: str) -> Callable[[Told], Told]:
    return lambda told: [event for event in told if event["type"] not in kinds]


def lacking(kind: str, *names: str, member: str | None = None) -> Callable[[Told], Told]:
    """Events of a kind without these members, of their own or of one of theirs."""

    def change(told: Told) -> Told:
        for event in told:
            if event["type"] == kind:
                holder = event.get(member, {}) if member else event
                for name in names:
                    holder.pop(name, None)
        return told

    return change


def without_blocks(told: Told) -> Told:
    """Of texts and thoughts."""
    return [
        event
        for event in told
        if event["type"] != "content_block_start" or event["content_block"]["type"] not in ("text", "thinking")
    ]


FAULTS: dict[str, Callable[[Told], Told]] = {
    "no beginning": without("message_start"),
    "no ends of blocks": without("content_block_stop"),
    "no beginnings of blocks": without_blocks,
    "beginnings twice": lambda told: [
        event for each in told for event in [each] * (1 + (each["type"] == "content_block_start"))
    ],
    "a message without members": lacking("message_start", "content", "usage", "role", "id", "type", member="message"),
    "no message": lacking("message_start", "message"),
    "blocks without members": lacking("content_block_start", "text", "thinking", "signature", member="content_block"),
    "no usage at the end": lacking("message_delta", "usage"),
    "no delta at the end": lacking("message_delta", "delta"),
    "no end": without("message_delta"),
    "only deltas": lambda told: without("message_start", "content_block_stop")(without_blocks(told)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_a_host_breaks_the_helper(fault: str) -> None:
    message = helped(passed(FAULTS[fault](written(SAID))))
    thought, text, call = message.content
    assert (thought.thinking, thought.signature, text.text, call.input) == ("hm", "c2ln", "Hello", {"a": 1})


@given(
    pieces=st.lists(st.sampled_from(SAID[1:5]), max_size=6),
    faults=st.lists(st.sampled_from(sorted(FAULTS)), max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_nor_do_several_in_any_stream(pieces: list[Event], faults: list[str]) -> None:
    told = written([Started("up", "model-1"), *pieces, Finished(FinishReason.STOP)])
    said = helped(passed(told))
    for fault in faults:
        told = FAULTS[fault](json.loads(json.dumps(told)))
    message = helped(passed(told))
    assert [block.to_dict() for block in message.content] == [block.to_dict() for block in said.content]


@pytest.mark.parametrize("at", [0, 5])
def test_what_cannot_be_mended_is_a_garbled_stream(at: int) -> None:
    """A call that nobody named, and blocks that are missing."""
    told = [event for event in written(SAID) if event["type"] != "content_block_start"]
    for event in told:
        if "index" in event:
            event["index"] += at
    with pytest.raises(UpstreamBroken, match="garbled"):
        passed(told)


def test_a_lawful_stream_stays_as_it_is() -> None:
    told = written(SAID)
    assert read(passed(told)) == told
