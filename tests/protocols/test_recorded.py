"""Specimens of every protocol, through its codec: the bytes of a host in, golden events out, however they are cut.

tests/recorded/<protocol>/NAME.stream     the body of a streamed answer
                          NAME.response   the body of a whole answer with the same meaning; alone where nothing streams
                          NAME.events.json   what both become, neighbouring deltas joined (tokenworks' own form)
                          (the same under providers/<row of the catalog>/, in the provider's own dress)
                          NAME.request.json  a caller's body: decoded, encoded and decoded again it must be the same
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.config.catalog import known_providers
from tokenworks.core.errors import TokenworksError
from tokenworks.core.events import Event, Failed, ReasoningDelta, TextDelta, ToolCallDelta, UsageReport
from tokenworks.core.request import Request
from tokenworks.protocols import PROTOCOLS, codec

RECORDED = Path(__file__).parents[1] / "recorded"
PROVIDERS = known_providers(PROTOCOLS)
STREAMS = sorted([*RECORDED.glob("*/*.stream"), *RECORDED.glob("providers/*/*.stream")])
RESPONSES = sorted([*RECORDED.glob("*/*.response"), *RECORDED.glob("providers/*/*.response")])
REQUESTS = sorted(RECORDED.glob("*/*.request.json"))
USUAL_KINDS = ("input", "cached_input", "cache_write", "output", "reasoning")
"""Kinds of usage that every specimen states; the rest where it is more than none."""


def protocol_of(path: Path) -> str:
    """Of the folder's name, or the one in which the provider of that name is asked first."""
    provider = PROVIDERS.get(path.parent.name) if path.parents[1].name == "providers" else None
    return provider.protocols[0] if provider else path.parent.name


def label(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def joined(events: list[Event]) -> list[Event]:
    """Neighbouring deltas of the same thing as one, up to the proof that ends a thought; the last usage report only."""
    out: list[Event] = []
    last_usage = max((i for i, event in enumerate(events) if isinstance(event, UsageReport)), default=-1)
    for position, event in enumerate(events):
        before = out[-1] if out else None
        if isinstance(event, UsageReport) and position != last_usage:
            continue
        if type(event) is type(before) and isinstance(event, TextDelta) and before.index == event.index:
            logprobs = None if event.logprobs is None else (before.logprobs or []) + event.logprobs
            out[-1] = dataclasses.replace(before, text=before.text + event.text, logprobs=logprobs)
        elif isinstance(event, ReasoningDelta) and isinstance(before, ReasoningDelta) and same_thought(before, event):
            proof = {"signature": event.signature, "encrypted": event.encrypted}
            out[-1] = dataclasses.replace(before, text=before.text + event.text, **proof)
        elif (
            isinstance(event, ToolCallDelta)
            and isinstance(before, ToolCallDelta)
            and (before.index, before.call) == (event.index, event.call)
        ):
            out[-1] = dataclasses.replace(before, arguments=before.arguments + event.arguments)
        else:
            out.append(event)
    return out


def same_thought(before: ReasoningDelta, event: ReasoningDelta) -> bool:
    ended = before.signature is not None or before.encrypted is not None
    return before.index == event.index and not ended and (type(before) is type(event) or not event.text)


def plain(events: list[Event]) -> list[dict[str, Any]]:
    rows = []
    for event in joined(events):
        if isinstance(event, Failed):
            rows.append({"event": "Failed", "code": event.error.code, "message": event.error.message})
        else:
            row = {"event": type(event).__name__, **dataclasses.asdict(event)}
            if row.get("service_tier", "") is None:  # few hosts tell it
                del row["service_tier"]
            row.pop("prompt", None)  # a stream tells it at its beginning, and again at its end
            if isinstance(event, UsageReport):
                row["usage"] = {kind: count for kind, count in row["usage"].items() if count or kind in USUAL_KINDS}
            rows.append(row)
    return json.loads(json.dumps(rows))


def golden(path: Path) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(path.with_name(path.name.split(".")[0] + ".events.json").read_text())
    return events


def read(protocol: str, pieces: list[bytes]) -> list[Event]:
    reader = codec(protocol).stream_reader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events + reader.close()


def without_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Choices interleave in a stream and stand side by side in a whole answer; Started's id is the host's own."""
    return sorted((row for row in rows if row["event"] != "Started"), key=lambda row: json.dumps(row, sort_keys=True))


def serves(protocol: str) -> bool:
    return bool(list((RECORDED / protocol).glob("*.request.json")))


@pytest.mark.parametrize("path", STREAMS, ids=label)
def test_a_stream_becomes_its_golden_events(path: Path) -> None:
    assert plain(read(protocol_of(path), [path.read_bytes()])) == golden(path)


@pytest.mark.parametrize("path", STREAMS, ids=label)
def test_a_stream_cut_at_any_byte_becomes_the_same_events(path: Path) -> None:
    data, expected = path.read_bytes(), golden(path)
    for cut in range(len(data) + 1):
        assert plain(read(protocol_of(path), [data[:cut], data[cut:]])) == expected, f"cut at {cut}"


@pytest.mark.parametrize("path", STREAMS, ids=label)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_stream_in_random_pieces_becomes_the_same_events(path: Path, data: st.DataObject) -> None:
    whole = path.read_bytes()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert plain(read(protocol_of(path), pieces)) == golden(path)


@pytest.mark.parametrize("path", RESPONSES, ids=label)
def test_a_whole_answer_means_the_same_as_its_stream(path: Path) -> None:
    events = codec(protocol_of(path)).read_response(path.read_bytes())
    assert without_order(plain(events)) == without_order(golden(path))


@pytest.mark.parametrize("path", STREAMS, ids=label)
def test_written_again_a_stream_and_its_fold_lose_nothing(path: Path) -> None:
    """Events -> our own stream and our own whole answer -> events, for the protocols that we serve."""
    spoken = codec(protocol_of(path))
    events = read(protocol_of(path), [path.read_bytes()])
    if any(isinstance(event, Failed) for event in events) or not serves(protocol_of(path)):
        return
    request = request_for(protocol_of(path))
    writer = spoken.stream_writer(request, "id-1", 1)
    written = b"".join([writer.feed(event) for event in events]) + writer.close()
    assert without_order(plain(read(protocol_of(path), [written]))) == without_order(golden(path))
    folded = spoken.read_response(spoken.encode_response(request, events, "id-1", 1))
    assert without_order(plain(folded)) == without_order(golden(path))


@pytest.mark.parametrize("path", [path for path in RESPONSES if serves(protocol_of(path))], ids=label)
def test_written_again_a_whole_answer_loses_nothing(path: Path) -> None:
    spoken = codec(protocol_of(path))
    events = spoken.read_response(path.read_bytes())
    again = spoken.read_response(spoken.encode_response(request_for(protocol_of(path)), events, "id-1", 1))
    assert without_order(plain(again)) == without_order(golden(path))


def request_for(protocol: str) -> Request:
    path = min((RECORDED / protocol).glob("*.request.json"))
    request = codec(protocol).decode_request(path.read_bytes())
    request.include_usage = True
    return request


@pytest.mark.parametrize("path", REQUESTS, ids=label)
def test_a_request_survives_its_neutral_form(path: Path) -> None:
    spoken = codec(protocol_of(path))
    first = spoken.decode_request(path.read_bytes())
    again = spoken.decode_request(spoken.encode_request(first, first.model, stream=first.stream))
    for name in ("model", "task", "sampling", "response_format", "max_output_tokens", "n", "logprobs", "stream"):
        assert getattr(again, name) == getattr(first, name), name


@pytest.mark.parametrize("protocol", sorted({path.parent.name for path in REQUESTS}))
@given(body=st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["model", "messages", "role", "content", "type", "text", "stop", "n", "tools", "prompt"])
        | st.text(max_size=5), inner, max_size=6),
    max_leaves=20,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_no_body_raises_anything_but_the_protocols_own_error(protocol: str, body: bytes) -> None:
    try:
        assert isinstance(codec(protocol).decode_request(body), Request)
    except TokenworksError as error:
        assert error.status == 400
        assert json.loads(codec(protocol).encode_error(error))


@pytest.mark.parametrize("protocol", sorted({protocol_of(path) for path in STREAMS}))
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_no_stream_raises_anything_but_an_upstreams_error(protocol: str, data: st.DataObject) -> None:
    """Mutations of specimens: bytes flipped, dropped, doubled."""
    specimen = data.draw(st.sampled_from([path for path in STREAMS if protocol_of(path) == protocol])).read_bytes()
    mutated = bytearray(specimen)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(mutated) - 1, 0)))
        mutated[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        read(protocol, [bytes(mutated)])
    except TokenworksError as error:
        assert error.status >= 400
