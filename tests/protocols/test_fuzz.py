"""Whatever comes in: nothing but the protocol's own error. Specimens with members exchanged, dropped and doubled, for
every decoder of requests, every reader of streams, of whole answers and of errors; whatever is accepted goes on to
every other protocol or is refused by name.
"""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.core.errors import InvalidRequest, TokenworksError
from tokenworks.core.events import Event
from tokenworks.core.request import Request
from tokenworks.protocols import DIALECTS, PROTOCOLS, codec
from tokenworks.protocols.base import Observation
from tokenworks.protocols.called import CalledOnly
from tokenworks.protocols.translation import Translation

RECORDED = Path(__file__).parents[1] / "recorded"
ROUNDS = 40
"""Of each test: CONTRIBUTING.md tells how to go on for longer."""
LIKE = {
    "fireworks_chat": "openai_chat",
    "fireworks_completions": "openai_completions",
    "groq_chat": "openai_chat",
    "tgi_chat": "openai_chat",
    "tgi_embed": "tgi",
    "tgi_generate": "tgi",
    "tgi_generate_stream": "tgi",
}
"""Whose specimens a dialect is tried with."""
ONLY_CALLED = {name for name in PROTOCOLS if isinstance(codec(name), CalledOnly)}
SERVED = sorted((PROTOCOLS.keys() - {"worker"} - ONLY_CALLED) | DIALECTS.keys())
CALLED = sorted(PROTOCOLS)

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(
        ["function", "text", "user", "assistant", "tool", "auto", "required", "data:;base64,", "{}", "{"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "text", "role", "content", "name", "function", "id", "arguments", "index", "input"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)


def specimens(protocol: str, ending: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((RECORDED / LIKE.get(protocol, protocol)).glob(f"*{ending}"))]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def changed(value: Any, data: st.DataObject) -> Any:
    """With one to three places dropped, doubled or filled with something else."""
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(value)))
        if not path:
            continue
        parent = value
        for key in path[:-1]:
            parent = parent[key]
        match data.draw(st.sampled_from(["drop", "double", "junk", "junk"])):
            case "drop":
                del parent[path[-1]]
            case "double" if isinstance(parent, list):
                parent.insert(path[-1], copy.deepcopy(parent[path[-1]]))
            case _:
                parent[path[-1]] = data.draw(JUNK)
    return value


def spoiled(raw: bytes, data: st.DataObject) -> bytes:
    """With some bytes lost, changed or doubled."""
    mutated = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(mutated) - 1, 0)))
        mutated[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=4))
    return bytes(mutated)


@pytest.mark.parametrize("protocol", SERVED)
@given(data=st.data())
@settings(max_examples=ROUNDS, deadline=None)
def test_requests(protocol: str, data: st.DataObject) -> None:
    spoken = codec(protocol)
    body = json.loads(data.draw(st.sampled_from(specimens(protocol, ".request.json"))))
    try:
        request = spoken.decode_request(json.dumps(changed(body, data)).encode())
    except TokenworksError as error:
        assert isinstance(error, InvalidRequest) and error.message
        assert json.loads(spoken.encode_error(error))
        return
    assert isinstance(request, Request)
    for other in CALLED:
        try:
            assert isinstance(codec(other).encode_request(request, "m", stream=request.stream), bytes)
        except InvalidRequest as error:
            assert error.param, error.message


@pytest.mark.parametrize("protocol", SERVED)
@given(data=st.data())
@settings(max_examples=ROUNDS, deadline=None)
def test_bytes_for_a_request(protocol: str, data: st.DataObject) -> None:
    raw = data.draw(st.sampled_from(specimens(protocol, ".request.json")))
    try:
        codec(protocol).decode_request(spoiled(raw, data))
    except TokenworksError as error:
        assert isinstance(error, InvalidRequest)


def stream_of(raw: bytes, data: st.DataObject) -> bytes:
    """A stream whose chunks are still JSON, most of them."""
    lines = raw.split(b"\n")
    for at, line in enumerate(lines):
        head, colon, rest = line.partition(b":")
        if head == b"data" and colon and data.draw(st.integers(0, 5)) == 0:
            try:
                lines[at] = b"data: " + json.dumps(changed(json.loads(rest), data)).encode()
            except ValueError:
                continue
    return b"\n".join(lines)


@pytest.mark.parametrize("protocol", [name for name in CALLED if specimens(name, ".stream")])
@given(data=st.data())
@settings(max_examples=ROUNDS, deadline=None)
def test_streams(protocol: str, data: st.DataObject) -> None:
    raw = data.draw(st.sampled_from(specimens(protocol, ".stream")))
    stream = stream_of(raw, data) if protocol != "worker" and data.draw(st.booleans()) else spoiled(raw, data)
    half = len(stream) // 2
    try:
        reader = codec(protocol).stream_reader()
        events = reader.feed(stream[:half]) + reader.feed(stream[half:]) + reader.close()
    except TokenworksError as error:
        assert error.status >= 400
        return
    told(events, data)


@pytest.mark.parametrize("protocol", [name for name in CALLED if specimens(name, ".response")])
@given(data=st.data())
@settings(max_examples=ROUNDS, deadline=None)
def test_whole_answers(protocol: str, data: st.DataObject) -> None:
    raw = data.draw(st.sampled_from(specimens(protocol, ".response")))
    as_json = protocol != "worker" and data.draw(st.booleans())
    body = json.dumps(changed(json.loads(raw), data)).encode() if as_json else spoiled(raw, data)
    try:
        events = codec(protocol).read_response(body)
    except (TokenworksError, ValueError):  # which the relay turns into a broken upstream
        return
    told(events, data)


def told(events: list[Event], data: st.DataObject) -> None:
    """To a caller of any protocol that takes the same task, in a stream and whole."""
    name = data.draw(st.sampled_from([name for name in SERVED if specimens(name, ".request.json")]))
    spoken = codec(name)
    request = spoken.decode_request(specimens(name, ".request.json")[0])
    writer = spoken.stream_writer(request, "id-1", 1) if request.stream else None
    if writer is not None:
        assert isinstance(b"".join([writer.feed(event) for event in events]) + writer.close(), bytes)
    else:
        assert json.loads(spoken.encode_response(request, events, "id-1", 1)) is not None


@pytest.mark.parametrize("protocol", SERVED)
@given(data=st.data())
@settings(max_examples=ROUNDS, deadline=None)
def test_a_relay_of_a_spoiled_stream_passes_it_on_or_says_that_it_is_broken(protocol: str, data: st.DataObject) -> None:
    spoken = codec(protocol)
    request = spoken.decode_request(data.draw(st.sampled_from(specimens(protocol, ".request.json"))))
    request.stream = True
    raws = specimens(protocol, ".stream")
    if not raws:
        return
    stream = spoiled(data.draw(st.sampled_from(raws)), data)
    upstream = codec(LIKE.get(protocol, protocol))
    try:
        relays = [Translation(spoken, upstream, request, Observation(), ("id-1", 1))]
        relays += [spoken.passthrough(request, Observation())] if spoken is upstream else []
        for relay in relays:
            assert isinstance(relay.feed(stream) + relay.close(), bytes)
    except TokenworksError as error:
        assert error.status >= 400
    except NotImplementedError:
        assert protocol in ("replicate", "tgi_embed"), "only these have no stream of their own"


@pytest.mark.parametrize("protocol", CALLED)
@given(status=st.integers(300, 599), body=st.binary(max_size=60) | JUNK.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=ROUNDS, deadline=None)
def test_errors_of_upstreams(protocol: str, status: int, body: bytes) -> None:
    for raw in (body, b'{"error":' + body + b"}"):
        error = codec(protocol).read_error(status, raw, provider="up", retry_after=None)
        assert isinstance(error, TokenworksError) and error.message
