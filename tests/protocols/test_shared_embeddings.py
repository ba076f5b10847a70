"""Real exchanges with hosts of embeddings and rerank, read in place; they are not part of this repository."""

import json
from pathlib import Path
from typing import Any

import pytest

from tokenworks.core.errors import CallerError, UpstreamError
from tokenworks.core.events import Finished, UsageReport, Vector
from tokenworks.core.request import Embeddings, Rerank
from tokenworks.protocols import codec

SHARED = Path(__file__).parents[3] / "shared" / "data" / "recorded"
PROTOCOLS = {"/embeddings": "openai_embeddings", "/rerank": "rerank"}

pytestmark = pytest.mark.skipif(not SHARED.exists(), reason=f"no recordings of providers at {SHARED}")


def exchanges() -> list[Any]:
    found = []
    for path in sorted(SHARED.glob("*/*.json")):
        if any(word in path.name for word in ("embed", "rerank")):
            exchange = json.loads(path.read_text())
            found.append(pytest.param(exchange, id=f"{path.parent.name}/{path.stem}"))
    return found


def protocol(exchange: dict[str, Any]) -> str | None:
    path = exchange["request"]["path"].partition("?")[0]
    return next((name for end, name in PROTOCOLS.items() if path.endswith(end)), None)


EXCHANGES = exchanges()
OURS = [case for case in EXCHANGES if protocol(case.values[0]) is not None]
OTHERS = [case for case in EXCHANGES if protocol(case.values[0]) is None]


def test_there_are_recordings_of_several_hosts() -> None:
    assert len(OURS) >= 10
    assert {case.id.split("/")[0] for case in OURS} >= {"openai", "voyage"}


@pytest.mark.parametrize("exchange", OURS)
def test_a_real_request_is_accepted_and_encoded_again_without_loss(exchange: dict[str, Any]) -> None:
    spoken = codec(protocol(exchange) or "")
    body = exchange["request"]["body"]
    request = spoken.decode_request(json.dumps(body).encode())
    assert isinstance(request.task, Embeddings | Rerank)
    again = json.loads(spoken.encode_request(request, request.model, stream=False))
    kept = {name: value for name, value in body.items() if value is not None and name not in request.ignored}
    assert {name: again.get(name) for name in kept} == kept
    assert json.loads(spoken.rewrite_request(request, "renamed")) == {**body, "model": "renamed"}


@pytest.mark.parametrize("exchange", OURS)
def test_a_real_answer_becomes_events_and_the_same_answer(exchange: dict[str, Any]) -> None:
    spoken = codec(protocol(exchange) or "")
    request = spoken.decode_request(json.dumps(exchange["request"]["body"]).encode())
    answer = exchange["response"]
    body = json.dumps(answer["body"]).encode()
    if answer["status"] != 200:
        error = spoken.read_error(answer["status"], body, provider="host", retry_after=None)
        assert isinstance(error, CallerError | UpstreamError)
        assert error.upstream_status == answer["status"]
        assert exchange["request"]["body"]["model"] in error.message
        return
    events = spoken.read_response(body)
    vectors = [event for event in events if isinstance(event, Vector)]
    assert isinstance(request.task, Embeddings)
    assert len(vectors) == len(request.task.inputs)
    assert all(len(vector.values) >= 128 and sum(v * v for v in vector.values) < 1.01 for vector in vectors)
    assert any(isinstance(event, UsageReport) for event in events)
    assert isinstance(events[-1], Finished)
    written = json.loads(spoken.encode_response(request, events, "id", 1))
    assert written["data"] == answer["body"]["data"]


@pytest.mark.parametrize("exchange", OTHERS)
def test_another_protocols_answer_is_never_taken_for_vectors(exchange: dict[str, Any]) -> None:
    spoken, answer = codec("openai_embeddings"), exchange["response"]
    body = answer["body"] if isinstance(answer["body"], str) else json.dumps(answer["body"])
    if answer["status"] == 200:
        with pytest.raises(ValueError):
            spoken.read_response(body.encode())
    else:
        error = spoken.read_error(answer["status"], body.encode(), provider="host", retry_after=None)
        assert isinstance(error, CallerError | UpstreamError)
