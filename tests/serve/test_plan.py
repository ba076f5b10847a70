"""Which processes run, with which options."""

from pathlib import Path

import pytest

from tokenworks.config.records import Configuration, ModelConfig
from tokenworks.models import WeightsError, load_catalog
from tokenworks.serve.plan import Command, Plan, local_models, make_plan
from tokenworks.serve.preflight import LONGEST_SOCKET_PATH, prepare
from tokenworks.serve.settings import ServeSettings

REMOTE = ModelConfig("assistant", targets=("upstream-a/model-1",))
ECHO = ModelConfig("team/echo", engine="echo", options={"rate": 20, "fault": "hang", "loud": True})


def planned(tmp_path: Path, settings: ServeSettings, *models: ModelConfig) -> Plan:
    configuration = Configuration(models={model.name: model for model in models})
    local = local_models(settings, configuration, load_catalog())
    return make_plan(settings, configuration, local, prepare(tmp_path))


def options(command: Command, name: str) -> list[str]:
    return [after for before, after in zip(command.arguments, command.arguments[1:], strict=False) if before == name]


def test_without_any_model_the_default_runs(tmp_path: Path) -> None:
    plan = planned(tmp_path, ServeSettings())
    assert plan.models == ("smollm2-135m",)
    (worker,) = plan.workers
    assert options(worker, "--weights") == ["smollm2-135m"]
    assert options(worker, "--engine") == ["llama"]
    assert options(plan.control, "--local-model") == ["smollm2-135m"]


def test_a_file_that_names_models_is_served_exactly(tmp_path: Path) -> None:
    plan = planned(tmp_path, ServeSettings(config=Path("c.toml")), REMOTE, ECHO)
    assert set(plan.models) == {"assistant", "team/echo"}
    (worker,) = plan.workers
    assert options(worker, "--model") == ["team/echo"]
    assert options(worker, "--option") == ["rate=20", "fault=hang", "loud=true"]
    assert options(worker, "--weights") == []
    assert options(plan.control, "--config") == ["c.toml"]
    assert options(plan.control, "--local-model") == []


def test_a_file_of_other_peoples_models_needs_no_worker(tmp_path: Path) -> None:
    assert planned(tmp_path, ServeSettings(), REMOTE).workers == ()


def test_models_asked_for_by_name_join_those_of_the_file(tmp_path: Path) -> None:
    plan = planned(tmp_path, ServeSettings(model=("smollm2-360m", "team/echo")), ECHO)
    assert plan.models == ("smollm2-360m", "team/echo")
    assert len(plan.workers) == 2
    assert options(plan.control, "--local-model") == ["smollm2-360m"]


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(WeightsError, match="Did you mean 'smollm2-135m'"):
        local_models(ServeSettings(model=("smollm-135m",)), Configuration(), load_catalog())


def test_sockets_and_logs_of_different_models_never_meet(tmp_path: Path) -> None:
    names = ("a/b", "a-b", "a b", "x" * 200, "x" * 199 + "y")
    models = [ModelConfig(name, engine="echo") for name in names]
    plan = planned(tmp_path, ServeSettings(), *models)
    assert len({worker.name for worker in plan.workers}) == len(names)
    for worker in plan.workers:
        (address,) = options(worker, "--listen")
        socket = address.removeprefix("unix:")
        assert len(socket.replace(".sock", "-engine.sock")) <= LONGEST_SOCKET_PATH
        assert "/" not in worker.name


def test_the_cluster_key_is_passed_as_a_path_only(tmp_path: Path) -> None:
    plan = planned(tmp_path, ServeSettings(), ECHO)
    for command in (plan.gateway, plan.control, *plan.workers):
        assert options(command, "--cluster-key-file") == [str(tmp_path / "cluster.key")]
