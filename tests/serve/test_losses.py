"""kill -9 of every process under load: what callers see, and that the usage in control is exactly what they got."""

import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CALLERS = 6
WORDS = 12


class Load:
    """Callers that ask without pause, half of them streaming; remembers what each answer was."""

    def __init__(self, server: Any, model: str) -> None:
        self.answered: dict[str, int] = {}
        """Output tokens by request id of the answers that were complete."""
        self.outcomes: Counter[str] = Counter()
        self.garbled: list[bytes] = []
        self._server = server
        self._model = model
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(CALLERS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a caller hangs"

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            try:
                self._ask(stream=number % 2 == 1)
            except (OSError, http.client.HTTPException):
                self._count("no connection")
                time.sleep(0.05)

    def _count(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1

    def _ask(self, *, stream: bool) -> None:
        host, port = self._server.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        messages = [{"role": "user", "content": "one two three four five six seven eight nine ten eleven twelve"}]
        body = {"model": self._model, "messages": messages, "max_tokens": WORDS, "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        try:
            headers = {"authorization": f"Bearer {self._server.api_key}", "content-type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            response = connection.getresponse()
            self._judge(response.status, response.getheader("x-request-id") or "", response.read(), stream=stream)
        finally:
            connection.close()

    def _judge(self, status: int, request_id: str, body: bytes, *, stream: bool) -> None:
        if status != 200:
            self._count(json.loads(body)["error"]["code"])
            time.sleep(0.05)
        elif stream and not body.endswith(b"data: [DONE]\n\n"):
            last = json.loads(body.strip().split(b"\n\n")[-1].removeprefix(b"data: "))
            self._count(last["error"]["code"] if "error" in last else self._garble(body))
        else:
            whole = json.loads(body.strip().split(b"\n\n")[-2].removeprefix(b"data: ") if stream else body)
            with self._lock:
                self.answered[request_id] = whole["usage"]["completion_tokens"]
            self._count("answered")

    def _garble(self, body: bytes) -> str:
        self.garbled.append(body)
        return "cut"

    def wait_for(self, more: int, patience: float = 60.0) -> None:
        goal = self.outcomes["answered"] + more
        deadline = time.monotonic() + patience
        while self.outcomes["answered"] < goal:
            assert time.monotonic() < deadline, f"no service: {self.outcomes}"
            time.sleep(0.01)


def usage_rows(server: Any) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    after = ""
    while True:
        status, page = server.call("GET", f"/admin/v1/usage?limit=1000{after}", key=server.admin_key)
        assert status == 200, page
        for row in page["data"]:
            rows.setdefault(row["request_id"], []).append(row)
        if not page["has_more"]:
            return rows
        after = f"&after={page['last_id']}"


def complete(server: Any, load: Load) -> bool:
    """Every answered request is billed once, with the tokens its caller saw."""
    rows = usage_rows(server)
    for request_id, tokens in load.answered.items():
        billed = [row for row in rows.get(request_id, []) if row["outcome"] == "completed"]
        if [row["usage"]["output"] for row in billed] != [tokens]:
            return False
    return not any(row["outcome"] == "open" for found in rows.values() for row in found)


@pytest.fixture(scope="module")
def own_server(serve: Any, echo_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with serve(tmp_path_factory.mktemp("losses") / "data", "--config", str(echo_config)) as server:
        yield server


def kill(server: Any, name: str) -> None:
    os.kill(server.processes()[name], signal.SIGKILL)


def test_nobody_notices_that_control_was_killed(own_server: Any, wait_until: Callable[..., Any]) -> None:
    with Load(own_server, "echo") as load:
        load.wait_for(50)
        kill(own_server, "control")
        load.wait_for(150)
    assert set(load.outcomes) == {"answered"}, load.outcomes
    wait_until(lambda: own_server.call("GET", "/admin/v1/models", key=own_server.admin_key)[0] == 200, "control")
    wait_until(lambda: complete(own_server, load), "the usage of every answer")


def test_a_killed_gateway_loses_no_answered_request(own_server: Any, wait_until: Callable[..., Any]) -> None:
    with Load(own_server, "echo") as load:
        load.wait_for(100)
        kill(own_server, "gateway")
        load.wait_for(100)
    assert set(load.outcomes) <= {"answered", "no connection"}, load.outcomes
    wait_until(lambda: complete(own_server, load), "the usage of every answer")


def test_a_killed_worker_means_clean_errors_and_service_within_seconds(own_server: Any) -> None:
    with Load(own_server, "echo") as load:
        load.wait_for(50)
        kill(own_server, "worker")
        time.sleep(0.2)
        begun = time.monotonic()
        load.wait_for(50, patience=30)
        assert time.monotonic() - begun < 10
    assert not load.garbled
    assert set(load.outcomes) <= {"answered", "upstream_unavailable", "upstream_broken", "model_not_ready"}


def test_a_killed_engine_with_a_real_model(smollm2_server: Any) -> None:
    with Load(smollm2_server, "smollm2-135m") as load:
        load.wait_for(6)
        engine = next(name for name in smollm2_server.processes() if name.startswith("worker.engines"))
        kill(smollm2_server, engine)
        begun = time.monotonic()
        load.wait_for(6)
        assert time.monotonic() - begun < 20
    assert not load.garbled
    assert set(load.outcomes) <= {"answered", "upstream_unavailable", "upstream_broken", "model_not_ready"}
