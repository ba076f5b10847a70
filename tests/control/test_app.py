"""Start, stop, and every reason not to start."""

import socket
import sqlite3
import stat
import time
from pathlib import Path

import pytest

CONFIG = """
[providers.upstream-a]
protocol = "openai_chat"
base_url = "http://127.0.0.1:9100/v1"
api_key  = "env:UPSTREAM_A_KEY"

[models.assistant]
targets = ["upstream-a/org/model-1"]
limits  = {connect = 3, total = 100}
price   = {input = 0.15, output = 0.60}
"""


def test_a_stop_is_graceful_and_nothing_is_readable_by_others(control):
    process = control().start()
    files = [path for path in process.data_dir.rglob("*") if not path.is_dir()]
    assert {path.name for path in files} >= {"control.db", "bootstrap.json", "cluster.key", "control.sock"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert process.stop() == 0
    assert not process.socket.exists()


def test_a_killed_process_leaves_a_socket_that_the_next_one_replaces(control):
    process = control().start()
    keys = process.bootstrap
    process.close()
    assert process.socket.exists()
    process.start()
    assert process.bootstrap == keys
    assert process.admin("GET", "/admin/v1/keys").status == 200


def _refused(process) -> str:
    code, said = process.run()
    assert code == 2
    assert said.startswith("tokenworks control: ")
    assert said.count("\n") == 1, said
    return said


def test_a_price_that_nobody_stated_is_not_zero(control, short_dir):
    config = short_dir / "t.toml"
    config.write_text("\n".join(line for line in CONFIG.splitlines() if not line.startswith("price")))
    process = control("--config", str(config), environment={"UPSTREAM_A_KEY": "k"})
    code, said = process.run()
    assert (code, said.count("Traceback")) == (2, 0)
    assert "tokenworks control: [models.assistant] has targets but no price; add price = {" in said


def test_twice_on_one_data_directory(control, short_dir):
    control().start()
    assert "is in use by process" in _refused(control("--listen", f"unix:{short_dir}/other.sock"))


def test_socket_in_use(control, short_dir):
    first = control().start()
    said = _refused(control("--data-dir", str(short_dir / "second"), "--listen", first.address))
    assert "cannot listen on unix:" in said
    assert "in use" in said
    assert first.internal("GET", "/internal/v1/health").status == 200


def test_a_file_in_the_sockets_place_is_kept(control, short_dir):
    (short_dir / "precious").write_text("text")
    assert "not a socket" in _refused(control("--listen", f"unix:{short_dir}/precious"))
    assert (short_dir / "precious").read_text() == "text"


def test_port_in_use(control):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = _refused(control("--listen", f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert "in use" in said


def test_data_directory_that_cannot_be_written(control, short_dir):
    (short_dir / "file").write_text("")
    said = _refused(control("--data-dir", str(short_dir / "file" / "data")))
    assert "cannot write to the data directory" in said


@pytest.mark.parametrize("content", [b"this is no database, not at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_damaged_database(control, short_dir, content):
    (short_dir / "control.db").write_bytes(content)
    assert "control.db cannot be used" in _refused(control())
    assert (short_dir / "control.db").read_bytes() == content


def test_database_of_a_newer_version(control, short_dir):
    process = control().start()
    process.stop()
    with sqlite3.connect(short_dir / "control.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    assert "schema revision 9999" in _refused(process)


@pytest.mark.parametrize("mode, text", [(0o644, "00" * 32), (0o600, "short")])
def test_unusable_cluster_key(control, short_dir, mode, text):
    (short_dir / "cluster.key").write_text(text)
    (short_dir / "cluster.key").chmod(mode)
    assert "--cluster-key-file: " in _refused(control())


def test_configuration_that_cannot_be_used(control, short_dir):
    (short_dir / "file.toml").write_text("[models.a]\ntarget = ['x/y']\n")
    code, said = control("--config", str(short_dir / "file.toml")).run()
    assert code == 2
    assert "file.toml:2: unknown key models.a.target" in said
    assert "Traceback" not in said


def test_variable_of_a_credential_is_not_set(control, short_dir):
    (short_dir / "file.toml").write_text(CONFIG)
    said = _refused(control("--config", str(short_dir / "file.toml")))
    assert "[providers.upstream-a] api_key" in said
    assert "UPSTREAM_A_KEY is not set" in said


def test_a_configured_provider_is_offered_with_its_sealed_credential(control, short_dir):
    (short_dir / "file.toml").write_text(CONFIG)
    process = control("--config", str(short_dir / "file.toml"), environment={"UPSTREAM_A_KEY": "very-secret"}).start()
    (model,) = process.admin("GET", "/admin/v1/models").json["data"]
    assert (model["id"], model["default"], model["engine"]) == ("assistant", True, None)
    assert model["price_usd"]["input"] == "0.15"
    assert (model["limits"]["connect"], model["limits"]["total"]) == (3, 100)
    (target,) = model["targets"]
    assert (target["upstream"], target["model"], target["state"]) == ("upstream-a", "org/model-1", "ready")
    on_disk = b"".join(path.read_bytes() for path in Path(short_dir).glob("control.db*"))
    assert b"very-secret" not in on_disk
    said = process.internal("PUT", "/internal/v1/replicas/upstream-a", _beat())
    assert (said.status, said.error["param"]) == (400, "id")


def test_a_shipped_provider_needs_no_table(control, short_dir):
    """Its row, what the file changes of it, and what is unknown reach the gateways."""
    (short_dir / "file.toml").write_text(
        '[models.m]\ntargets = ["vllm/x", "bedrock-eu/y"]\nprice = {input = 1, output = 1}\n'
        '[providers.bedrock-eu]\nlike = "bedrock"\nregion = "eu-central-1"\napi_keys = ["env:ONE", "env:TWO"]\n'
        "models = {y = {context_length = 8192}}\n"
    )
    process = control("--config", str(short_dir / "file.toml"), environment={"ONE": "ABSK1", "TWO": "ABSK2"}).start()
    state = process.published()
    vllm, bedrock = state.upstreams["vllm"], state.upstreams["bedrock-eu"]
    assert (vllm.base_url, vllm.credentials, vllm.region) == ("http://127.0.0.1:8000/v1", (), "")
    assert (vllm.retention, vllm.trains) == (None, None)
    assert bedrock.base_url == "https://bedrock-runtime.eu-central-1.amazonaws.com"
    assert (bedrock.auth, bedrock.settings, bedrock.trains) == ("aws", {"region": "eu-central-1"}, None)
    assert len({key.id for key in bedrock.credentials}) == 2
    assert [target.context_length for target in state.models["m"].targets] == [None, 8192]


def _beat() -> dict[str, object]:
    return {"model": "m", "provider": "p", "protocols": ["worker"], "base_url": "http://h:1", "state": "ready"}


def test_tcp(control):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = control("--listen", f"http://127.0.0.1:{port}")
    process.spawn()
    for _ in range(600):
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=5)
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    with connection:
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert process.stop() == 0
