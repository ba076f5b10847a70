"""Every real exchange of Messages, with Anthropic itself or with a host that takes its bodies, read where it lies and
never copied: its request is accepted and survives its neutral form, its answer becomes events that fold to it again."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tokenworks.core.errors import TokenworksError
from tokenworks.core.events import Event, Finished, UsageReport
from tokenworks.core.request import Request
from tokenworks.protocols import codec
from tokenworks.protocols.anthropic_messages.counting import decode_countable, read_count
from tokenworks.protocols.base import Observation

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "recorded"
MESSAGES = codec("anthropic_messages")
HOSTS = ("anthropic", "bedrock", "vertex")
CARRIED = ("task", "sampling", "response_format", "max_output_tokens", "stream", "reasoning", "user", "own", "options")
NEUTRAL = ("text", "tool_use", "thinking", "redacted_thinking")

pytestmark = pytest.mark.skipif(not RECORDED.exists(), reason=f"the recorded exchanges are not at {RECORDED}")


@cache
def exchanges() -> dict[str, Any]:
    """By their bodies: hosts have paths of their own, and put the model into them."""
    found = {}
    for host in HOSTS:
        for path in sorted((RECORDED / host).glob("*.json")):
            exchange = json.loads(path.read_text())
            body = exchange["request"]["body"]
            if isinstance(body, dict) and "messages" in body and "converse" not in exchange["request"]["path"]:
                body.setdefault("model", exchange["request"]["path"].split("/")[2])
                found[f"{host}/{path.name}"] = exchange
    return found


def counts(exchange: dict[str, Any]) -> bool:
    return "count_tokens" in str(exchange["request"]["path"])


def requests() -> Iterator[tuple[str, Request]]:
    for name, exchange in exchanges().items():
        read = decode_countable if counts(exchange) else MESSAGES.decode_request
        yield name, read(json.dumps(exchange["request"]["body"]).encode())


def answers(kind: type) -> dict[str, Any]:
    return {
        name: exchange["response"]["body"]
        for name, exchange in exchanges().items()
        if exchange["response"]["status"] == 200
        and isinstance(exchange["response"]["body"], kind)
        and not counts(exchange)
    }


def streams() -> dict[str, bytes]:
    return {name: text.encode() for name, text in answers(str).items()}


def collected(stream: bytes) -> dict[str, Any]:
    """The message of a stream, put together as plainly as can be."""
    events = [json.loads(line[5:]) for line in stream.decode().splitlines() if line.startswith("data:")]
    message: dict[str, Any] = events[0]["message"]
    inputs: dict[int, str] = {}
    for event in events:
        match event:
            case {"type": "content_block_start", "content_block": block}:
                message["content"].append(block)
            case {"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta"} as delta}:
                inputs[index] = inputs.get(index, "") + delta["partial_json"]
            case {"type": "content_block_delta", "index": index, "delta": delta}:
                block = message["content"][index]
                for member in ("text", "thinking", "signature"):
                    if member in delta:
                        block[member] += delta[member]
            case {"type": "message_delta"}:
                message |= event["delta"]
                message["usage"] |= event["usage"]
    for index, text in inputs.items():
        message["content"][index]["input"] = json.loads(text or "{}")
    return message


def neutral(message: dict[str, Any]) -> dict[str, Any]:
    """What the neutral form carries of a message: texts that only a block of another kind parted are one."""
    blocks: list[dict[str, Any]] = []
    for block in message["content"]:
        if block["type"] not in NEUTRAL:
            continue
        kept = {k: v for k, v in block.items() if k not in ("citations", "caller")}
        if blocks and blocks[-1]["type"] == kept["type"] == "text":
            blocks[-1]["text"] += kept["text"]
        elif kept.get("text") != "":
            blocks.append(kept)
    usage = message["usage"]
    told = [usage.get(name) or 0 for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")]
    return {
        "model": message["model"],
        "content": blocks,
        "stop": (message["stop_reason"], message["stop_sequence"]),
        "usage": [*told, usage["output_tokens"]],
    }


def folded(events: list[Event]) -> dict[str, Any]:
    request = MESSAGES.decode_request(b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}]}')
    message: dict[str, Any] = json.loads(MESSAGES.encode_response(request, events, "msg_1", 1))
    return message


def read(stream: bytes, step: int) -> list[Event]:
    reader = MESSAGES.stream_reader()
    return [e for at in range(0, len(stream), step) for e in reader.feed(stream[at : at + step])] + reader.close()


def test_there_is_something_to_read() -> None:
    assert len(exchanges()) > 190
    assert len(streams()) > 5
    assert {name.partition("/")[0] for name in exchanges()} >= {"anthropic", "bedrock"}


def test_every_request_is_accepted_and_survives_its_neutral_form() -> None:
    for name, first in requests():
        again = MESSAGES.decode_request(MESSAGES.encode_request(first, first.model, stream=first.stream))
        for member in CARRIED:
            if member == "max_output_tokens" and first.max_output_tokens is None:
                continue
            assert getattr(again, member) == getattr(first, member), f"{name}: {member}"


def test_every_request_passes_through_unchanged_but_for_the_model() -> None:
    for name, request in requests():
        body = exchanges()[name]["request"]["body"]
        assert json.loads(MESSAGES.rewrite_request(request, "up")) == {**body, "model": "up"}, name


@pytest.mark.parametrize("protocol", ["openai_chat", "openai_responses"])
def test_every_request_reaches_another_protocol_or_is_refused_by_name(protocol: str) -> None:
    reached = 0
    for name, request in requests():
        try:
            codec(protocol).encode_request(request, "m", stream=request.stream)
            reached += 1
        except TokenworksError as error:
            assert error.status == 400 and error.param and "'" in error.message, name
    assert reached > 100


def test_every_whole_answer_folds_to_itself() -> None:
    for name, body in answers(dict).items():
        assert neutral(folded(MESSAGES.read_response(json.dumps(body).encode()))) == neutral(body), name


@pytest.mark.parametrize("step", [1, 97, 10_000])
def test_every_stream_folds_to_its_message(step: int) -> None:
    for name, stream in streams().items():
        assert neutral(folded(read(stream, step))) == neutral(collected(stream)), name


def test_every_stream_written_again_says_the_same() -> None:
    request = MESSAGES.decode_request(b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}]}')
    sources = [MESSAGES.read_response(json.dumps(body).encode()) for body in answers(dict).values()]
    for events in [*sources, *[read(stream, 997) for stream in streams().values()]]:
        writer = MESSAGES.stream_writer(request, "msg_1", 1)
        written = b"".join([writer.feed(event) for event in events]) + writer.close()
        assert neutral(collected(written)) == neutral(folded(events))


def test_every_stream_passes_through_to_the_byte() -> None:
    for name, stream in streams().items():
        request = MESSAGES.decode_request(b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}]}')
        relay = MESSAGES.passthrough(request, Observation())
        passed = b"".join([relay.feed(stream[at : at + 97]) for at in range(0, len(stream), 97)]) + relay.close()
        assert passed == stream, name
        seen = relay.observation
        reported, finished = read(stream, 997)[-2:]
        assert isinstance(reported, UsageReport) and isinstance(finished, Finished), name
        assert (seen.usage, seen.finish_reasons) == (reported.usage, {0: finished.reason}), name
        outputs = sum(stream.count(f'"{kind}_delta"'.encode()) for kind in ("text", "thinking", "input_json"))
        assert seen.deltas == outputs, name


def test_every_error_and_count_is_read() -> None:
    counted = 0
    for name, exchange in exchanges().items():
        response = exchange["response"]
        body = json.dumps(response["body"]).encode()
        if response["status"] != 200:
            error = MESSAGES.read_error(response["status"], body, provider="up", retry_after=None)
            assert response["body"]["error"]["message"] in error.message, name
        elif counts(exchange):
            counted += 1
            assert read_count(body) == response["body"]["input_tokens"]
    assert counted > 3
