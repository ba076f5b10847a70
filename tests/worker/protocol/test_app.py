"""The worker protocol over a real socket, with echo behind it."""

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokenworks.protocols.worker import types as wire
from tokenworks.protocols.worker.framing import Reader

ECHO = ("--model", "m", "--engine", "echo")
MESSAGES = [{"role": "user", "content": "one two three"}]
ENDLESS = {"messages": MESSAGES, "sampling": {"ignore_eos": True}}
IN_FLIGHT = "tokenworks_worker_in_flight_requests"


@pytest.fixture
def worker(start: Callable[..., Any]) -> Any:
    worker = start(*ECHO, "--option", "rate=200")
    worker.until_state("ready")
    return worker


def test_an_answer_is_a_stream_of_frames(shared_echo: Any) -> None:
    events = shared_echo.generate(messages=MESSAGES)
    assert isinstance(events[0], wire.Started)
    assert events[0].model == "m"
    assert "".join(event.text for event in events if isinstance(event, wire.Tokens)) == "one two three"
    assert events[-2:] == [wire.Finish("stop"), wire.Usage(input=5, output=3, gpu_ms=15)]


def test_ids_lead_back_to_the_text(shared_echo: Any) -> None:
    told = json.loads(shared_echo.call("POST", "/worker/v1/tokenize", {"text": "one  two\n"})[1])
    ids = told["ids"]
    assert "".join(told["texts"]) == "one  two\n"
    assert json.loads(shared_echo.call("POST", "/worker/v1/detokenize", {"ids": ids})[1]) == {"text": "one  two\n"}
    events = shared_echo.generate(prompts=[ids])
    assert [i for event in events if isinstance(event, wire.Tokens) for i in event.ids] == ids


def test_render_shows_what_the_model_sees(shared_echo: Any) -> None:
    status, body = shared_echo.call("POST", "/worker/v1/render", {"messages": MESSAGES})
    rendered = json.loads(body)
    assert (status, rendered["text"]) == (200, "user: one two three\nassistant:")
    assert len(rendered["ids"]) == 5


def test_leaving_frees_the_sequence(shared_echo: Any, wait_until: Callable[..., Any]) -> None:
    connections = [shared_echo.connect() for _ in range(3)]
    for connection in connections:
        connection.request("POST", "/worker/v1/generate", json.dumps(ENDLESS))
        assert connection.getresponse().read(100)
    assert shared_echo.metric(IN_FLIGHT) == 3
    for connection in connections:
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
    wait_until(lambda: shared_echo.metric(IN_FLIGHT) == 0)
    assert shared_echo.metric('tokenworks_worker_requests_total{outcome="cancelled"}') == 3
    before = shared_echo.metric("tokenworks_worker_generated_tokens")
    time.sleep(0.2)
    assert shared_echo.metric("tokenworks_worker_generated_tokens") == before


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "param"),
    [
        ("POST", "/worker/v1/generate", {"messages": 3}, 400, "messages"),
        ("POST", "/worker/v1/generate", {"prompts": ["x"], "max_tokens": 0}, 400, "max_tokens"),
        ("POST", "/worker/v1/generate", {}, 400, "messages"),
        ("POST", "/worker/v1/generate", {"prompts": ["x"], "max_tokens": 10**6}, 400, "messages"),
        ("POST", "/worker/v1/detokenize", {"ids": [1]}, 400, "prompt"),
        ("GET", "/worker/v1/generate", None, 405, None),
        ("POST", "/worker/v1/nothing", {}, 404, None),
        ("POST", "/worker/v2/generate", {}, 404, None),
    ],
)
def test_bad_requests(shared_echo: Any, method: str, target: str, body: Any, status: int, param: str | None) -> None:
    got, answer = shared_echo.call(method, target, body)
    error = json.loads(answer)["error"]
    assert (got, error["param"]) == (status, param)
    assert error["message"]


def test_health_really_generates(shared_echo: Any) -> None:
    before = shared_echo.metric("tokenworks_worker_generated_tokens")
    status, body = shared_echo.call("GET", "/worker/v1/health")
    assert (status, json.loads(body)["version"]) == (200, wire.VERSION)
    assert shared_echo.metric("tokenworks_worker_generated_tokens") == before + 1


def test_drain_refuses_and_ends(worker: Any) -> None:
    answers: list[list[wire.Event]] = []
    caller = threading.Thread(
        target=lambda: answers.append(worker.generate(messages=MESSAGES, max_tokens=150, sampling={"ignore_eos": True}))
    )
    caller.start()
    time.sleep(0.2)
    assert worker.call("POST", "/worker/v1/drain")[0] == 202
    status, body = worker.call("POST", "/worker/v1/generate", {"messages": MESSAGES})
    assert (status, json.loads(body)["error"]["code"]) == (503, "draining")
    assert worker.health()[0] == 503
    caller.join(30)
    assert answers[0][-2:] == [wire.Finish("length"), wire.Usage(input=5, output=150, gpu_ms=750)]
    assert worker.process.wait(30) == 0


def read_what_comes(worker: Any, said: str) -> bytes:
    """Until the answer ends, breaks off, or is silent for a second."""
    connection = worker.connect()
    try:
        connection.request("POST", "/worker/v1/generate", json.dumps({"messages": [{"role": "user", "content": said}]}))
        response, received = connection.getresponse(), b""
        connection.sock.settimeout(1)
        with contextlib.suppress(OSError, http.client.HTTPException):
            while chunk := response.read1():
                received += chunk
        return received
    finally:
        connection.close()


def test_faults_on_demand(shared_echo: Any) -> None:
    status, body = shared_echo.call(
        "POST", "/worker/v1/generate", {"messages": [{"role": "user", "content": "fault=error_before"}]}
    )
    assert (status, json.loads(body)["error"]["code"]) == (500, "engine_error")
    text = "a b c d e f=g fault={} after 4"
    for fault in ("cut", "stall"):
        received = read_what_comes(shared_echo, text.format(fault))
        events = Reader().feed(received)
        assert len([event for event in events if isinstance(event, wire.Tokens)]) == 4
        assert not any(isinstance(event, wire.Finish | wire.Usage) for event in events)
    received = read_what_comes(shared_echo, text.format("garbled"))
    with pytest.raises(ValueError, match="a frame claims"):
        Reader().feed(received)


def test_kill_ends_the_process(worker: Any) -> None:
    read_what_comes(worker, "fault=kill after 2")
    assert worker.process.wait(30) == -9


def test_tcp_demands_the_token(
    start: Callable[..., Any], key: Path, token: str, free_tcp_port: int, http_call: Any
) -> None:
    base = f"http://127.0.0.1:{free_tcp_port}"
    start("--model", "m", "--engine", "echo", "--listen", base, "--cluster-key-file", str(key))
    assert http_call(base, "GET", "/health", "")[0] == 200
    for wrong in ("", "nonsense"):
        assert http_call(base, "POST", "/worker/v1/tokenize", wrong, {"text": "x"})[0] == 401
        assert http_call(base, "GET", "/metrics", wrong)[0] == 401
    assert http_call(base, "POST", "/worker/v1/tokenize", token, {"text": "x"})[0] == 200
