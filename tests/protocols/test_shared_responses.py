"""Every real exchange of the Responses API, of any host, read where it lies and never copied: its request is accepted
and survives its neutral form, its answer becomes events, its stream tells what its last event repeats."""

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tokenworks.core.errors import TokenworksError
from tokenworks.core.events import Event, Finished, ReasoningDelta, Started, TextDelta, ToolCallDelta, UsageReport
from tokenworks.protocols import codec
from tokenworks.protocols.base import Continuing, Observation
from tokenworks.protocols.said import Matching, Said

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "recorded"
RESPONSES = codec("openai_responses")

pytestmark = pytest.mark.skipif(not RECORDED.exists(), reason=f"the recorded exchanges are not at {RECORDED}")


@cache
def exchanges() -> dict[str, Any]:
    """Calls of the response object itself; counting tokens and compacting are other endpoints."""
    found = {}
    for path in sorted(RECORDED.glob("*/*.json")):
        exchange = json.loads(path.read_text())
        words = exchange["request"]["path"].partition("?")[0].split("/")
        if "responses" in words and words[-1] not in ("compact", "input_tokens"):
            found[f"{path.parent.name}/{path.name}"] = exchange
    return found


def answers(kind: type) -> dict[str, Any]:
    return {
        name: exchange["response"]["body"]
        for name, exchange in exchanges().items()
        if exchange["response"]["status"] == 200 and isinstance(exchange["response"]["body"], kind)
    }


def told(events: list[Event]) -> dict[Any, Any]:
    """What the caller learns, whatever the order and the pieces."""
    out: dict[Any, Any] = {"text": "", "thoughts": "", "calls": {}, "end": None, "usage": None}
    for event in events:
        match event:
            case TextDelta():
                out["text"] += event.text
            case ReasoningDelta():
                out["thoughts"] += event.text
            case ToolCallDelta():
                call = out["calls"].setdefault(event.call, {"id": event.id, "name": event.name, "arguments": ""})
                call["arguments"] += event.arguments
            case Finished():
                out["end"] = event.reason
            case UsageReport():
                out["usage"] = event.usage
    return out


def test_there_is_something_to_read() -> None:
    assert len(exchanges()) > 200
    assert {name.partition("/")[0] for name in exchanges()} >= {"openai", "azure", "deepseek", "openrouter"}


def test_every_request_is_accepted_and_survives_its_neutral_form() -> None:
    carried = ("task", "sampling", "response_format", "max_output_tokens", "logprobs", "stream", "reasoning", "user")
    accepted = 0
    for name, exchange in exchanges().items():
        if not isinstance(exchange["request"]["body"], dict):
            continue
        first = RESPONSES.decode_request(json.dumps(exchange["request"]["body"]).encode())
        again = RESPONSES.decode_request(RESPONSES.encode_request(first, first.model, stream=first.stream))
        for member in carried:
            assert getattr(again, member) == getattr(first, member), f"{name}: {member}"
        accepted += 1
    assert accepted > 190


def test_every_request_reaches_a_chat_upstream_or_is_refused_by_name() -> None:
    reached = 0
    for name, exchange in exchanges().items():
        if not isinstance(exchange["request"]["body"], dict):
            continue
        request = RESPONSES.decode_request(json.dumps(exchange["request"]["body"]).encode())
        try:
            codec("openai_chat").encode_request(request, "m", stream=request.stream)
            reached += 1
        except TokenworksError as error:
            assert error.status == 400 and error.param and "'" in error.message, name
    assert reached > 100


def test_every_whole_answer_becomes_events() -> None:
    unfinished = 0
    for name, body in answers(dict).items():
        encoded = json.dumps(body).encode()
        if body["status"] in ("queued", "in_progress"):
            unfinished += 1
            with pytest.raises(ValueError, match="not a finished"):
                RESPONSES.read_response(encoded)
            continue
        events = RESPONSES.read_response(encoded)
        text = "".join(
            part.get("text") or part.get("refusal") or ""
            for item in body["output"]
            if item["type"] == "message"
            for part in item["content"]
        )
        assert isinstance(events[0], Started), name
        assert told(events)["text"] == text, name
        calls = [item["arguments"] for item in body["output"] if item["type"] == "function_call"]
        assert [call["arguments"] for call in told(events)["calls"].values()] == calls, name
        assert told(events)["end"] is not None, name
        if body.get("usage"):
            assert told(events)["usage"].prompt == body["usage"]["input_tokens"], name
    assert unfinished < 10


def test_every_stream_tells_what_its_last_event_repeats() -> None:
    for name, text in answers(str).items():
        last = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")][-1]
        reader = RESPONSES.stream_reader()
        events = [event for at in range(0, len(text), 997) for event in reader.feed(text[at : at + 997].encode())]
        whole = RESPONSES.read_response(json.dumps(last["response"]).encode())
        assert told(events + reader.close()) == told(whole), name


def test_every_stream_passes_through_in_one_dress() -> None:
    for name, text in answers(str).items():
        request = RESPONSES.decode_request(b'{"model":"m","input":"Hi","stream":true}')
        relay = RESPONSES.passthrough(request, Observation())
        passed = (relay.feed(text.encode()) + relay.close()).decode()
        said = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        blocks = passed.removesuffix("\n\n").split("\n\n")
        told = [json.loads(block.partition("\ndata: ")[2]) for block in blocks]
        if said[0]["type"] == "response.created":
            assert told == said, name
        else:  # the rest of one: it gets its beginning
            assert [event["type"] for event in told] == ["response.created", *[event["type"] for event in said]], name
        assert [block.partition("\n")[0] for block in blocks] == [f"event: {event['type']}" for event in told], name
        assert relay.observation.usage is not None, name
        assert relay.observation.finish_reasons, name


def items_of(stream: bytes) -> tuple[list[int], list[Any], Any]:
    """The numbers of its events, the items that it closed, and its last event's response."""
    events = [json.loads(line[6:]) for line in stream.decode().splitlines() if line.startswith("data: {")]
    done = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.done"}
    begun = {event["output_index"]: event["item"] for event in events if event["type"] == "response.output_item.added"}
    for event in events:
        if "item_id" in event:
            assert event["item_id"] == begun[event["output_index"]]["id"], event
    assert sorted(done) == sorted(begun) == list(range(len(done)))
    return [e["sequence_number"] for e in events], [done[at] for at in sorted(done)], events[-1]["response"]


def test_a_stream_that_was_passed_through_is_gone_on_with_after_any_event() -> None:
    """By a writer that knows only what went by, with what another upstream says again from the start."""
    request = RESPONSES.decode_request(b'{"model":"m","input":"Hi","stream":true}')
    gone_on = refused = 0
    for name, text in answers(str).items():
        passed = RESPONSES.passthrough(request, Observation()).feed(text.encode())
        blocks = [block + b"\n\n" for block in passed.split(b"\n\n") if block.strip()]
        reader = RESPONSES.stream_reader()
        every = reader.feed(text.encode()) + reader.close()
        step = max(len(blocks) // 25, 1)
        for at in range(3, len(blocks), step):
            before = b"".join(blocks[:at])
            writer = RESPONSES.stream_writer(request, "resp_ours", 1)
            assert isinstance(writer, Continuing)
            if not writer.go_on(before):
                refused += 1
                continue
            said = Said()
            said.add(RESPONSES.stream_reader().feed(before))
            rest = Matching(said)(copy.deepcopy(every))
            whole = before + b"".join(writer.feed(event) for event in rest) + writer.close()
            numbers, items, last = items_of(whole)
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), (name, at)
            assert last["id"] == "resp_ours"
            assert last["output"] == items, (name, at)
            again = RESPONSES.read_response(json.dumps(last).encode())
            assert {**told(again), "thoughts": ""} == {**told(every), "thoughts": ""}, (name, at)
            gone_on += 1
    assert gone_on > 150, (gone_on, refused)


def without_one(value: Any) -> Iterator[Any]:
    """The same without one of its members, each in turn."""
    if isinstance(value, dict):
        for name in value:
            yield {other: inner for other, inner in value.items() if other != name}
            for inner in without_one(value[name]):
                yield {**value, name: inner}


def test_a_stream_that_lacks_something_is_gone_on_with_or_not_but_breaks_nothing() -> None:
    request = RESPONSES.decode_request(b'{"model":"m","input":"Hi","stream":true}')
    tried = 0
    for text in answers(str).values():
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        # What a response repeats of its request is many members that nobody looks at.
        events = [{**each, **({"response": {"model": "m"}} if "response" in each else {})} for each in events[:20]]
        for at, event in enumerate(events):
            for less in without_one(event):
                told_so_far = [*events[:at], less, *events[at + 1 :]]
                raw = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in told_so_far)
                writer = RESPONSES.stream_writer(request, "resp_ours", 1)
                assert isinstance(writer, Continuing)
                if writer.go_on(raw):
                    assert writer.feed(TextDelta("more")) + writer.close()
                tried += 1
    assert tried > 1_000
