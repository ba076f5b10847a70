"""A server whose answers can be waited for, continued, cancelled and told about: one fast model, one slow one."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.clients.receiver import Receiver

MODELS = """
[models.echo]
engine = "echo"

[models.slow]
engine = "echo"
options = { rate = 20 }
"""


@pytest.fixture(scope="session")
def patient_server(tmp_path_factory: pytest.TempPathFactory, serve: Any, wait_until: Any) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("patient")
    (folder / "models.toml").write_text(MODELS)
    options = ("--config", str(folder / "models.toml"))
    with serve(folder / "data", *options, TOKENWORKS_CONTROL_WEBHOOK_HOST="127.0.0.1") as server:
        ask = {"model": "slow", "input": "w", "store": False}
        wait_until(lambda: server.call("POST", "/v1/responses", ask)[0] == 200, "the other model")
        yield server


@pytest.fixture(scope="session")
def strangers_key(patient_server: Any) -> str:
    """An API key of another project."""
    admin = {"key": patient_server.admin_key}
    _, project = patient_server.call("POST", "/v1/organization/projects", {"name": "strangers"}, **admin)
    path = f"/v1/organization/projects/{project['id']}/service_accounts"
    status, account = patient_server.call("POST", path, {"name": "stranger"}, **admin)
    assert status < 300, account
    return str(account["api_key"]["value"])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()
