"""`tokenworks serve` as a whole, with real planes: start, keys, refusals, deaths, and what is left at the end."""

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ALL_THREADS

Serve = Callable[..., AbstractContextManager[Any]]
TOKENWORKS = Path(sys.executable).with_name("tokenworks")


def refused(*options: str, cwd: Path, **environment: str) -> str:
    """What `serve` says when it does not start; it must end with code 2 by itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOKENWORKS_")}
    ended = subprocess.run(
        [TOKENWORKS, "serve", *options], cwd=cwd, env=kept | environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    return ended.stderr


def test_it_answers_with_the_echo_engine(echo_server: Any) -> None:
    assert echo_server.models == ["echo"]
    status, answer = echo_server.chat("one two three")
    assert status == 200
    assert "one two three" in answer["choices"][0]["message"]["content"]
    assert set(echo_server.processes()) == {"control", "gateway", "worker"}


def test_it_answers_with_a_real_model_by_default(smollm2_server: Any) -> None:
    assert smollm2_server.models == ["smollm2-135m"]
    status, answer = smollm2_server.chat("What is the capital of France? Answer briefly.", temperature=0, max_tokens=24)
    assert status == 200
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] > 0


def test_secrets_are_private(echo_server: Any) -> None:
    for name in ("bootstrap.json", "cluster.key"):
        assert stat.S_IMODE((echo_server.data_dir / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(echo_server.data_dir.stat().st_mode) == 0o700
    for log in (echo_server.data_dir / "logs").iterdir():
        assert echo_server.api_key not in log.read_text()
        assert echo_server.admin_key not in log.read_text()


def test_a_port_in_use_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused("--port", port, "--data-dir", "data", cwd=tmp_path)
    assert said.count("\n") == 1
    assert f"port {port} on 127.0.0.1 is in use; choose another with --port" in said
    assert not (tmp_path / "data").exists()


def test_an_unusable_data_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    said = refused("--port", "0", "--data-dir", "data", cwd=tmp_path)
    assert said.count("\n") == 1
    assert re.search(r"data directory data: .*data is not a directory; choose another with --data-dir", said)


def test_every_mistake_in_the_configuration_is_shown_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "tokenworks.toml").write_text('[serve]\nprot = 1\n\n[models.a]\nengine = "ehco"\n')
    said = refused("--port", "0", cwd=tmp_path)
    assert re.search(r"tokenworks\.toml:2: .*serve\.prot.*port", said)
    assert re.search(r"tokenworks\.toml:5: .*'ehco'.*echo", said)
    assert not (tmp_path / ".data").exists()


def test_an_unknown_model_is_refused_with_the_nearest_names(tmp_path: Path) -> None:
    said = refused("--port", "0", "--model", "smollm2-135", cwd=tmp_path)
    assert "no model 'smollm2-135'" in said
    assert "Did you mean 'smollm2-135m'" in said


@pytest.mark.parametrize(("option", "value"), [("PORT", "many"), ("PORT", "70000"), ("VERBOSE", "perhaps")])
def test_a_bad_value_in_the_environment_is_named(tmp_path: Path, option: str, value: str) -> None:
    said = refused(cwd=tmp_path, **{f"TOKENWORKS_{option}": value})
    assert f"TOKENWORKS_{option}" in said


def test_a_plane_that_cannot_start_stops_serve_with_its_words(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[models.a]\nengine = "echo"\noptions = {no_such_option = 1}\n')
    said = refused("--port", "0", "--config", str(config), cwd=tmp_path)
    assert "worker-a cannot start" in said
    assert "no_such_option" in said


def test_a_second_serve_on_the_same_data_directory_is_refused(echo_server: Any, tmp_path: Path) -> None:
    said = refused("--port", "0", "--data-dir", str(echo_server.data_dir), cwd=tmp_path)
    assert f"in use by another `tokenworks serve` (pid {echo_server.process.pid})" in said


def test_environment_wins_over_the_file_and_the_file_names_the_models(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "tokenworks.toml").write_text('[serve]\nport = 1\n[models."team/echo"]\nengine = "echo"\n')
    with serve(tmp_path / "data", cwd=tmp_path) as server:
        assert server.models == ["team/echo"]
        assert server.chat("hello")[0] == 200


def test_a_second_start_keeps_keys_and_usage_and_the_first_one_leaves_no_process(
    serve: Serve, tmp_path: Path, echo_config: Path, alive: Callable[[int], bool], wait_until: Callable[..., Any]
) -> None:
    with serve(tmp_path / "data", "--config", str(echo_config)) as server:
        first_key = server.api_key
        assert server.chat("first")[0] == 200
        pids = server.processes().values()
        assert server.stop(signal.SIGTERM) == 0
        assert not any(map(alive, pids))
    with serve(tmp_path / "data", "--config", str(echo_config)) as server:
        assert server.api_key == first_key
        assert server.chat("second")[0] == 200
        # The gateway may answer callers a moment before control does.
        wait_until(lambda: server.call("GET", "/admin/v1/usage", key=server.admin_key)[0] == 200, "control")
        wait_until(lambda: _attempts(server) == 2, "the usage of both")
        assert server.stop(signal.SIGINT) == 0


SLOW = '[models.slow]\nengine = "echo"\noptions = {rate = 20}\n'
FORTY = " ".join(str(number) for number in range(40))


def test_stopping_lets_an_answer_in_progress_end(serve: Serve, tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    config = tmp_path / "slow.toml"
    config.write_text(SLOW)
    answers: list[Any] = []
    with serve(tmp_path / "data", "--config", str(config)) as server:
        asking = threading.Thread(target=lambda: answers.append(server.chat(FORTY)))
        asking.start()
        wait_until(lambda: _in_flight(server) > 0, "the request to be on its way")
        assert server.stop(signal.SIGTERM) == 0
        asking.join()
    status, answer = answers[0]
    assert status == 200
    assert answer["choices"][0]["message"]["content"].endswith("39")


def test_a_second_signal_stops_at_once(
    serve: Serve, tmp_path: Path, wait_until: Callable[..., Any], alive: Callable[[int], bool]
) -> None:
    config = tmp_path / "slow.toml"
    config.write_text(SLOW)
    with serve(tmp_path / "data", "--config", str(config)) as server:
        pids = server.processes().values()
        asking = threading.Thread(target=_ignore_errors, args=(lambda: server.chat(FORTY * 50),))
        asking.start()
        wait_until(lambda: _in_flight(server) > 0, "the request to be on its way")
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: "Ctrl-C again" in (tmp_path / "data.err").read_text(), "the first signal to be heard")
        assert server.stop(signal.SIGINT) == 130
        asking.join()
        assert not any(map(alive, pids))


def test_killing_the_supervisor_leaves_no_process(
    serve: Serve, tmp_path: Path, echo_config: Path, alive: Callable[[int], bool], wait_until: Callable[..., Any]
) -> None:
    with serve(tmp_path / "data", "--config", str(echo_config)) as server:
        pids = server.processes().values()
        assert len(pids) == 3
        server.stop(signal.SIGKILL)
        wait_until(lambda: not any(map(alive, pids)), "all processes to be gone")
    with serve(tmp_path / "data", "--config", str(echo_config)) as server:
        assert server.chat("again")[0] == 200


def test_killing_the_supervisor_of_a_real_engine_leaves_no_process(
    serve: Serve, tmp_path: Path, alive: Callable[[int], bool], wait_until: Callable[..., Any]
) -> None:
    with serve(tmp_path / "data", **ALL_THREADS) as server:
        assert server.chat("Two threads?", max_tokens=20)[0] == 200
        pids = server.processes().values()
        assert len(pids) == 4  # the engine is a process of its worker
        server.stop(signal.SIGKILL)
        wait_until(lambda: not any(map(alive, pids)), "all processes to be gone")


@pytest.mark.parametrize("plane", ["control", "worker", "gateway"])
def test_a_killed_plane_is_started_again_and_service_goes_on(
    echo_server: Any, plane: str, wait_until: Callable[..., Any]
) -> None:
    before = echo_server.processes()
    os.kill(before[plane], signal.SIGKILL)
    wait_until(lambda: echo_server.processes().get(plane, before[plane]) != before[plane], f"a new {plane}")
    wait_until(lambda: _answers(echo_server), f"service without the old {plane}", patience=30)
    wait_until(lambda: json.loads(_get(echo_server, "/readyz"))["status"] == "ready", "everything to be ready")
    after = echo_server.processes()
    assert {name: pid for name, pid in after.items() if name != plane} == {
        name: pid for name, pid in before.items() if name != plane
    }
    told = echo_server.data_dir.with_suffix(".err").read_text()
    assert re.search(rf"{plane}\S* killed by SIGKILL .*; starts again in [\d.]+ s", told)


def test_killing_control_is_invisible_to_callers(echo_server: Any, wait_until: Callable[..., Any]) -> None:
    control = echo_server.processes()["control"]
    os.kill(control, signal.SIGSTOP)
    try:
        assert echo_server.chat("while control is stopped")[0] == 200
        os.kill(control, signal.SIGKILL)
        for _ in range(20):
            assert echo_server.chat("while control is gone")[0] == 200
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(control, signal.SIGCONT)
    wait_until(lambda: echo_server.processes().get("control", control) != control, "a new control")
    wait_until(lambda: json.loads(_get(echo_server, "/readyz"))["status"] == "ready", "everything to be ready")


def _answers(server: Any) -> bool:
    return bool(server.chat("still there?")[0] == 200)


def _attempts(server: Any) -> int:
    _, usage = server.call("GET", "/admin/v1/usage", key=server.admin_key)
    return int(usage["totals"]["attempts"])


def _get(server: Any, path: str) -> str:
    import urllib.request

    with urllib.request.urlopen(server.url + path, timeout=30) as response:
        return str(response.read().decode())


def _in_flight(server: Any) -> float:
    found = re.search(r"^tokenworks_in_flight_requests (\S+)$", _get(server, "/metrics"), re.MULTILINE)
    return float(found[1]) if found else 0


def _ignore_errors(work: Callable[[], Any]) -> None:
    """The connection is meant to break."""
    try:
        work()
    except OSError:
        return
