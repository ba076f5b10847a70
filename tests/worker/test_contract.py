"""What every kind of engine must do for its worker, told once: health, state, restart, drain, failing starts."""

import contextlib
import http.client
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokenworks.core.events import UsageReport, Working
from tokenworks.protocols import codec

LONG = " ".join(str(number) for number in range(40))


class Echo:
    path = "/worker/v1/generate"

    def __init__(self) -> None:
        self.arguments = ("--model", "m", "--engine", "echo", "--option", "rate=25")
        self.body = {"messages": [{"role": "user", "content": LONG}], "max_tokens": 40}

    @staticmethod
    def socket(worker: Any) -> Path:
        return worker.socket

    @staticmethod
    def kill(worker: Any) -> str:
        """The engine's death; what the reason must say."""
        crash = {"messages": [{"role": "user", "content": "fault=crash"}]}
        with pytest.raises((http.client.HTTPException, OSError)):
            worker.call("POST", "/worker/v1/generate", crash)
        return "fault=crash"

    @staticmethod
    def complete(body: bytes) -> bool:
        return b"finish" in body and b"usage" in body

    @staticmethod
    def busy(body: bytes) -> tuple[int, int]:
        """Milliseconds that it computed, as it told them last on the way and at its end."""
        return _busy(codec("worker"), body)


class LlamaServer:
    path = "/v1/completions"

    def __init__(self, weights: Path) -> None:
        self.arguments = ("--model", "m", "--engine", "llama_server", "--weights", f"file:{weights}")
        self.arguments += ("--option", "slots=4", "--option", "context=1024")
        self.body = {"prompt": "Once upon a time", "max_tokens": 80, "ignore_eos": True, "stream": True}
        self.body["stream_options"] = {"include_usage": True}

    @staticmethod
    def socket(worker: Any) -> Path:
        return worker.socket.with_name("w-engine.sock")

    @staticmethod
    def kill(worker: Any) -> str:
        (child,) = worker.children()
        os.kill(child, signal.SIGKILL)
        return "killed by SIGKILL"

    @staticmethod
    def complete(body: bytes) -> bool:
        return b'"finish_reason":"length"' in body and body.rstrip().endswith(b"[DONE]")

    @staticmethod
    def busy(body: bytes) -> tuple[int, int]:
        at_the_end = _busy(codec("openai_completions"), body)[1]
        return at_the_end, at_the_end  # it tells nothing on the way


class Llama:
    path = "/worker/v1/generate"
    socket = staticmethod(LlamaServer.socket)
    kill = staticmethod(LlamaServer.kill)
    complete = staticmethod(Echo.complete)
    busy = staticmethod(Echo.busy)

    def __init__(self, weights: Path) -> None:
        self.arguments = ("--model", "m", "--engine", "llama", "--weights", f"file:{weights}")
        self.arguments += ("--option", "slots=4", "--option", "context=1024")
        self.body = {"prompts": ["Once upon a time"], "max_tokens": 80, "sampling": {"ignore_eos": True}}


@pytest.fixture(params=["echo", "llama", "llama_server"])
def kind(request: pytest.FixtureRequest) -> Any:
    if request.param == "echo":
        return Echo()
    return {"llama": Llama, "llama_server": LlamaServer}[request.param](request.getfixturevalue("smollm2"))


def ask(worker: Any, kind: Any) -> bytes:
    return worker.call("POST", kind.path, kind.body, at=kind.socket(worker))[1]


def test_it_gets_ready_and_says_so(kind: Any, start: Callable[..., Any], control: Any, key: Path, token: str) -> None:
    worker = start(*kind.arguments, control=control, key=key)
    worker.until_state("ready")
    assert worker.health() == (200, {"state": "ready", "reason": "", "model": "m"})
    beat = control.until_beat(lambda beat: beat["state"] == "ready")
    assert beat["model"] == "m"
    assert beat["provider"] == f"local/{kind.arguments[3]}"
    assert beat["base_url"].startswith(f"unix:{kind.socket(worker)}|/")
    assert beat["protocols"]
    assert beat["context_length"] >= 1024
    assert control.states() == ["starting", "ready"]
    assert control.tokens == {f"Bearer {token}"}
    assert worker.metric('tokenworks_worker_state{state="ready"}') == 1
    begun = time.monotonic()
    answer = ask(worker, kind)
    assert kind.complete(answer)
    told, busy = kind.busy(answer)
    assert 0 < told <= busy <= 1000 * (time.monotonic() - begun) + 1, "its share of a machine that nobody else uses"


def test_a_dead_engine_comes_back_and_its_reason_is_told(
    kind: Any, start: Callable[..., Any], control: Any, key: Path
) -> None:
    worker = start(*kind.arguments, control=control, key=key)
    worker.until_state("ready")
    reason = kind.kill(worker)
    control.until_beat(lambda beat: beat["state"] == "restarting" and reason in beat["reason"])
    worker.until_state("ready")
    assert worker.health()[1]["reason"] == ""
    assert worker.metric("tokenworks_worker_restarts") == 1
    assert kind.complete(ask(worker, kind))


def test_requests_end_when_their_engine_dies(kind: Any, start: Callable[..., Any]) -> None:
    worker = start(*kind.arguments)
    worker.until_state("ready")
    ends: list[bool] = []

    def load() -> None:
        try:
            ends.append(kind.complete(ask(worker, kind)))
        except (http.client.HTTPException, OSError):
            ends.append(False)

    callers = [threading.Thread(target=load) for _ in range(3)]
    for caller in callers:
        caller.start()
    time.sleep(0.3)
    kind.kill(worker)
    for caller in callers:
        caller.join(30)
        assert not caller.is_alive()
    assert ends == [False] * 3
    worker.until_state("ready")


def test_sigterm_lets_running_requests_finish(kind: Any, start: Callable[..., Any], control: Any, key: Path) -> None:
    worker = start(*kind.arguments, control=control, key=key)
    worker.until_state("ready")
    answers: list[bytes] = []
    caller = threading.Thread(target=lambda: answers.append(ask(worker, kind)))
    caller.start()
    time.sleep(1.0)  # it is on its way, or answered
    assert worker.stop() == 0
    caller.join(60)
    assert len(answers) == 1
    assert kind.complete(answers[0])
    assert control.states()[-1] == "draining"
    assert set(control.deleted) == control.paths
    assert not worker.socket.exists()


def test_a_drain_has_a_limit(kind: Any, start: Callable[..., Any]) -> None:
    worker = start(*kind.arguments, "--drain-limit", "0.2", "--option", "context=2048")
    worker.until_state("ready")
    kind.body = {**kind.body, "max_tokens": 800, "ignore_eos": True, "sampling": {"ignore_eos": True}}
    if kind.path == "/worker/v1/generate":
        kind.body.pop("ignore_eos")
    caller = threading.Thread(target=lambda: _ignoring_cuts(lambda: ask(worker, kind)), daemon=True)
    caller.start()
    time.sleep(0.3)
    assert worker.stop() == 0
    assert "still run after 0.2 s" in worker.log.read_text()
    caller.join(30)
    assert not caller.is_alive()


def test_kill_9_of_the_worker_leaves_nothing_behind(
    kind: Any, start: Callable[..., Any], wait_until: Callable[..., Any], running: Callable[[int], bool]
) -> None:
    worker = start(*kind.arguments)
    worker.until_state("ready")
    children = worker.children()
    worker.process.kill()
    worker.process.wait()
    wait_until(lambda: not any(running(child) for child in children))
    again = start(*kind.arguments)  # its stale sockets are in nobody's way
    again.until_state("ready")


def test_an_address_in_use_is_told_and_waited_for(kind: Any, start: Callable[..., Any]) -> None:
    first = start(*kind.arguments)
    first.until_state("ready")
    second = start(*kind.arguments)
    log = _until_logged(second, "in use by another process")
    assert re.search(r"the agent does not start: unix:\S+ is in use by another process; next try in 0.2 s", log)
    assert first.stop() == 0
    second.until_state("ready")


def _busy(protocol: Any, body: bytes) -> tuple[int, int]:
    events = protocol.stream_reader().feed(body)
    told = [event.gpu_ms for event in events if isinstance(event, Working)]
    assert told == sorted(told)
    (report,) = [event.usage for event in events if isinstance(event, UsageReport)]
    return (told or [0])[-1], report.gpu_ms


def _until_logged(worker: Any, text: str) -> str:
    for _ in range(3000):
        assert worker.process.poll() is None, worker.log.read_text()
        if text in (log := worker.log.read_text()):
            return log
        time.sleep(0.02)
    raise AssertionError(f"{text!r} never came in {log}")


def _ignoring_cuts(work: Callable[[], object]) -> None:
    with contextlib.suppress(http.client.HTTPException, OSError):
        work()
