"""kill -9 of control and of the gateway while answers are made: what was told to be stored is there, what was not says
so, what ran has failed, and nothing hangs."""

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MODELS = """
[models.echo]
engine = "echo"

[models.slow]
engine = "echo"
options = { rate = 5 }
"""
CALLERS = 4


@pytest.fixture(scope="module")
def only_server(tmp_path_factory: Any, serve: Any) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("answers")
    (folder / "models.toml").write_text(MODELS)
    with serve(folder / "data", "--config", str(folder / "models.toml")) as server:
        yield server


@pytest.fixture
def server(only_server: Any, wait_until: Any) -> Any:
    """Whole again, whatever was killed before."""
    ask = {"model": "slow", "input": "w", "store": False}
    wait_until(lambda: only_server.call("POST", "/v1/responses", ask)[0] == 200, "the slow model")
    wait_until(lambda: only_server.call("GET", "/readyz")[1]["status"] == "ready", "everything")
    wait_until(lambda: set(only_server.processes()) == {"control", "gateway", "worker"}, "every process")
    return only_server


class Storing:
    """Callers that make responses without pause, half of them streaming; remembers what each one was told."""

    def __init__(self, server: Any) -> None:
        self.told: dict[str, bool] = {}
        """Whether it is stored, by id of the responses that came whole."""
        self._server = server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n % 2 == 1,), daemon=True) for n in range(CALLERS)]

    def __enter__(self) -> "Storing":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a caller hangs"

    def stored(self) -> int:
        return sum(self.told.values())

    def _run(self, stream: bool) -> None:
        while not self._stop.is_set():
            try:
                body = self._ask(stream)
                if body is not None:
                    self.told[body["id"]] = body["store"]
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)

    def _ask(self, stream: bool) -> Any:
        host, port = self._server.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            headers = {"authorization": f"Bearer {self._server.api_key}", "content-type": "application/json"}
            body = {"model": "echo", "input": "one two three", "stream": stream}
            connection.request("POST", "/v1/responses", json.dumps(body), headers)
            response = connection.getresponse()
            raw = response.read()
            if response.status != 200:
                return None
            if not stream:
                return json.loads(raw)
            last = json.loads(raw.strip().split(b"\n\n")[-1].partition(b"data: ")[2] or b"{}")
            return last["response"] if last.get("type") == "response.completed" else None
        finally:
            connection.close()


@pytest.mark.parametrize("victim", ["control", "gateway"])
def test_a_response_is_stored_or_says_that_it_is_not(server: Any, wait_until: Any, victim: str) -> None:
    with Storing(server) as storing:
        for _ in range(3):
            enough = storing.stored() + 20
            wait_until(lambda enough=enough: storing.stored() > enough, "stored responses")
            os.kill(server.processes()[victim], signal.SIGKILL)
        enough = storing.stored() + 20
        wait_until(lambda: storing.stored() > enough, "stored responses after the last kill")
    wait_until(lambda: server.call("GET", "/readyz")[1]["status"] == "ready")
    for response, told in storing.told.items():
        status, _ = server.call("GET", f"/v1/responses/{response}")
        if told:  # one whose save's reply was lost may be there though it was told not to be
            assert status == 200, response
    assert storing.stored() > 80


def test_what_a_killed_gateway_ran_has_failed(server: Any, wait_until: Any) -> None:
    words = " ".join(["w"] * 300)
    body = {"model": "slow", "input": words, "background": True, "stream": False}
    _, response = server.call("POST", "/v1/responses", body)
    _, prediction = server.call("POST", "/v1/predictions", {"version": "tokenworks/slow", "input": {"prompt": words}})
    wait_until(lambda: _saved(server.data_dir / "control.db", prediction["id"])["output"], "the first saved words")
    assert server.call("GET", f"/v1/responses/{response['id']}")[1]["status"] == "in_progress"
    os.kill(server.processes()["gateway"], signal.SIGKILL)

    def status(path: str) -> Any:
        return server.call("GET", path)[1].get("status")

    wait_until(lambda: status(f"/v1/responses/{response['id']}") == "failed", "the response's end")
    wait_until(lambda: status(f"/v1/predictions/{prediction['id']}") == "failed", "the prediction's end")
    _, failed = server.call("GET", f"/v1/responses/{response['id']}")
    assert "lost" in failed["error"]["message"]
    _, failed = server.call("GET", f"/v1/predictions/{prediction['id']}")
    assert failed["output"] and "lost" in failed["error"]
    # Who reads along is told, too.
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    headers = {"authorization": f"Bearer {server.api_key}"}
    connection.request("GET", f"/v1/predictions/{prediction['id']}/stream", headers=headers)
    stream = connection.getresponse().read()
    connection.close()
    assert stream.count(b"event: output") == len(failed["output"])
    assert stream.strip().endswith(b'data: {"reason":"error"}')


def _saved(database: Path, answer_id: str) -> Any:
    """What control has of it: a gateway that lives shows what it has not saved yet, too."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (body,) = connection.execute("SELECT body FROM answers WHERE id = ?", (answer_id,)).fetchone()
    return json.loads(body)


def test_what_runs_survives_control(server: Any, wait_until: Any) -> None:
    words = " ".join(["w"] * 20)  # four seconds
    body = {"model": "slow", "input": words, "background": True}
    _, response = server.call("POST", "/v1/responses", body)
    os.kill(server.processes()["control"], signal.SIGKILL)

    def ended() -> Any:
        status, found = server.call("GET", f"/v1/responses/{response['id']}")
        return found if status == 200 and found["status"] not in ("queued", "in_progress") else None

    found = wait_until(ended, "the response's end")
    assert found["status"] == "completed"
    assert found["output"][0]["content"][0]["text"] == words


def test_a_gateway_that_stops_ends_what_it_runs(server: Any, wait_until: Any) -> None:
    body = {"model": "slow", "input": " ".join(["w"] * 10), "background": True}
    _, response = server.call("POST", "/v1/responses", body)
    os.kill(server.processes()["gateway"], signal.SIGTERM)
    wait_until(lambda: server.call("GET", "/readyz")[1]["status"] == "ready", "another gateway")
    _, found = server.call("GET", f"/v1/responses/{response['id']}")
    assert found["status"] == "completed"  # it had its time


def test_a_run_that_ended_holds_up_nobody(server: Any, wait_until: Any) -> None:
    ask = {"model": "echo", "input": "one two three", "background": True}
    made = [server.call("POST", "/v1/responses", ask)[1]["id"] for _ in range(5)]
    ended = [f'"id":"{each}","status":"completed"' for each in made]
    wait_until(lambda: all(end in server.log("gateway") for end in ended), "every run to end")


def test_a_prediction_ends_cleanly_when_a_strict_limit_ends(server: Any, wait_until: Any) -> None:
    limit = {"scope": "model", "subject": "echo", "kind": "output_tokens", "limit": 40, "window_seconds": 86_400 * 30}
    status, made = server.call("POST", "/admin/v1/limits", {**limit, "strict": True}, key=server.admin_key)
    assert status in (200, 201), made
    body = {"version": "tokenworks/echo", "input": {"prompt": " ".join(["w"] * 300), "max_tokens": 300}}

    def ended() -> Any:
        """The first prediction that the limit is in force for."""
        _, prediction = server.call("POST", "/v1/predictions", body)
        path = f"/v1/predictions/{prediction['id']}"
        wait_until(lambda: server.call("GET", path)[1]["status"] in ("succeeded", "failed"), "the prediction's end")
        _, found = server.call("GET", path)
        assert found["status"] == "succeeded", found
        return found if len(found["output"]) < 300 else None

    found = wait_until(ended, "the limit")
    assert found["status"] == "succeeded"
    assert "".join(found["output"]).split() == ["w"] * 40
    assert found["metrics"]["output_token_count"] == 40
    path, key = f"/admin/v1/limits/{made['id']}", server.admin_key
    assert server.call("DELETE", path, key=key)[0] in (200, 204)
