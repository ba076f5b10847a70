"""Every real exchange of chat completions, with fourteen hosts, read where it lies and never copied: its request is
accepted or refused by name and survives its neutral form, its answer becomes events that fold to it again."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tokenworks.core.errors import CallerError, InvalidRequest, TokenworksError, UpstreamError
from tokenworks.core.events import Event, Failed, Finished, ReasoningDelta, TextDelta, ToolCallDelta, UsageReport
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "recorded"
CHAT = codec("openai_chat")
GROQ = codec("groq_chat")
CARRIED = ("task", "sampling", "response_format", "max_output_tokens", "n", "logprobs", "stream", "user")

pytestmark = pytest.mark.skipif(not RECORDED.exists(), reason=f"the recorded exchanges are not at {RECORDED}")


@cache
def exchanges() -> dict[str, Any]:
    found = {}
    for path in sorted(RECORDED.glob("*/*.json")):
        exchange = json.loads(path.read_text())
        if exchange["request"]["path"].partition("?")[0].partition("#")[0].endswith("/chat/completions"):
            found[f"{path.parent.name}/{path.name}"] = exchange
    return found


def answers(kind: type) -> dict[str, Any]:
    return {
        name: exchange["response"]["body"]
        for name, exchange in exchanges().items()
        if exchange["response"]["status"] == 200 and isinstance(exchange["response"]["body"], kind)
    }


def requests() -> dict[str, Request]:
    found = {}
    for name, exchange in exchanges().items():
        body = exchange["request"]["body"]
        if isinstance(body, dict):  # two hosts' requests were not kept
            body.setdefault("model", "m")  # one host has it in the path
            found[name] = CHAT.decode_request(json.dumps(body).encode())
    return found


def told(events: list[Event]) -> dict[Any, Any]:
    """What the caller learns, whatever the pieces."""
    out: dict[Any, Any] = {"text": "", "thoughts": "", "calls": {}, "end": {}, "usage": None, "failed": ""}
    for event in events:
        match event:
            case TextDelta():
                out["text"] += event.text
            case ReasoningDelta():
                out["thoughts"] += event.text
            case ToolCallDelta():
                call = out["calls"].setdefault((event.index, event.call), [event.id, event.name, ""])
                call[2] += event.arguments
            case Finished():
                out["end"][event.index] = event.reason
            case UsageReport():
                out["usage"] = event.usage
            case Failed():
                out["failed"] = str(event.error)
    return out


def read(stream: bytes, step: int) -> list[Event]:
    reader = CHAT.stream_reader()
    return [e for at in range(0, len(stream), step) for e in reader.feed(stream[at : at + step])] + reader.close()


def plain() -> Request:
    request = CHAT.decode_request(b'{"model":"m","messages":[{"role":"user","content":"x"}]}')
    request.include_usage = True
    return request


def test_there_is_something_to_read() -> None:
    assert len(exchanges()) >= 290
    assert len({name.partition("/")[0] for name in exchanges()}) == 14
    assert len(answers(dict)) > 250 and len(answers(str)) > 28


def test_every_request_is_accepted_and_survives_its_neutral_form() -> None:
    for name, first in requests().items():
        again = CHAT.decode_request(CHAT.encode_request(first, first.model, stream=first.stream))
        for member in CARRIED:
            assert getattr(again, member) == getattr(first, member), f"{name}: {member}"
        effort = first.reasoning.effort if first.reasoning else None
        assert (again.reasoning.effort if again.reasoning else None) == effort, name
    assert len(requests()) >= 288


def test_every_request_passes_through_unchanged_but_for_the_model_and_its_usage() -> None:
    for name, request in requests().items():
        body = exchanges()[name]["request"]["body"] | {"model": "up"}
        sent = json.loads(CHAT.rewrite_request(request, "up"))
        if request.stream:
            assert sent["stream_options"].pop("include_usage"), name
            body["stream_options"] = {
                k: v for k, v in (body.get("stream_options") or {}).items() if k != "include_usage"
            }
        assert sent == body, name


@pytest.mark.parametrize("protocol", ["openai_responses", "anthropic_messages", "worker"])
def test_every_request_reaches_another_protocol_or_is_refused_by_name(protocol: str) -> None:
    reached = 0
    for name, request in requests().items():
        try:
            codec(protocol).encode_request(request, "m", stream=request.stream)
            reached += 1
        except InvalidRequest as error:
            assert error.param, f"{name}: {error.message}"
    assert reached > 200


def test_groqs_requests_are_read_in_its_own_dialect() -> None:
    bodies = [exchange["request"]["body"] for name, exchange in exchanges().items() if name.startswith("groq/")]
    assert len(bodies) > 40
    for body in bodies:
        assert GROQ.decode_request(json.dumps(body).encode()).model == body["model"]


def test_every_whole_answer_folds_to_itself_and_streams_as_itself() -> None:
    for name, body in answers(dict).items():
        events = CHAT.read_response(json.dumps(body).encode())
        said = told(events)
        message = body["choices"][0]["message"]
        assert [call[2] for call in said["calls"].values()] == [
            call["function"]["arguments"] for call in message.get("tool_calls") or []
        ], name
        if isinstance(message.get("content"), str):
            assert said["text"] == message["content"], name
        assert said["usage"] is None or said["usage"].prompt == body["usage"]["prompt_tokens"], name
        assert told(CHAT.read_response(CHAT.encode_response(plain(), events, "id-1", 1))) == said | {
            "usage": said["usage"] or Usage()
        }, name
        writer = CHAT.stream_writer(plain(), "id-1", 1)
        written = b"".join([writer.feed(event) for event in events]) + writer.close()
        assert told(read(written, len(written))) == said | {"usage": said["usage"] or Usage()}, name


@pytest.mark.parametrize("step", [1, 97])
def test_every_stream_says_the_same_in_any_pieces(step: int) -> None:
    for name, text in answers(str).items():
        assert told(read(text.encode(), step)) == told(read(text.encode(), len(text) * 4)), name


def test_every_stream_passes_through_saying_the_same_in_the_dress_that_clients_read() -> None:
    for name, text in answers(str).items():
        relay = CHAT.passthrough(plain(), Observation())
        said = told(read(text.encode(), 997))
        try:
            passed = b"".join([relay.feed(text.encode()[at : at + 97]) for at in range(0, len(text) * 4, 97)])
            passed += relay.close()
        except TokenworksError as error:
            assert said["failed"] == str(error), name
            continue
        assert told(read(passed, 997)) == said, name
        assert all(block.startswith(b"data: ") for block in passed.split(b"\n\n")[:-1]), name
        assert relay.observation.usage == said["usage"], name


def test_every_error_is_read_and_none_is_a_bug() -> None:
    seen = 0
    for name, exchange in exchanges().items():
        response = exchange["response"]
        if response["status"] != 200:
            body = json.dumps(response["body"]).encode()
            error = CHAT.read_error(response["status"], body, provider="up", retry_after=None)
            assert isinstance(error, CallerError | UpstreamError), name
            assert response["body"]["error"]["message"] in error.message, name
            seen += 1
    assert seen >= 8
