"""kill -9 of every process under load: what callers see, and that the usage in control is exactly what they got."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.load import Load, complete


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


CLEAN = {"answered", "upstream_unavailable", "upstream_broken", "upstream_circuit_open", "model_not_ready"}
"""What callers may be told while a replica is away."""


def test_a_killed_worker_means_clean_errors_and_service_within_seconds(own_server: Any) -> None:
    with Load(own_server, "echo") as load:
        load.wait_for(50)
        kill(own_server, "worker")
        load.wait_for(50)
    assert not load.garbled
    assert set(load.outcomes) <= CLEAN


def test_a_killed_engine_with_a_real_model(smollm2_server: Any) -> None:
    with Load(smollm2_server, "smollm2-135m") as load:
        load.wait_for(6)
        engine = next(name for name in smollm2_server.processes() if name.startswith("worker.engines"))
        kill(smollm2_server, engine)
        load.wait_for(6)
    assert not load.garbled
    assert set(load.outcomes) <= CLEAN
