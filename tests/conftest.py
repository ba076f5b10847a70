"""Whole servers for tests: `tokenworks serve` as a process of its own, one per engine for the session."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from hypothesis import HealthCheck, settings
from tests.postgres import PostgresServer, running_postgres

settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

os.environ.setdefault("OMP_THREAD_LIMIT", "1")
"""Engines share their cores with whole other tests here, and a forward pass has hundreds of barriers, at each of which
all its threads wait for the last one: spinning, several times the work. `ALL_THREADS` is for the tests of that."""
ALL_THREADS = {"OMP_THREAD_LIMIT": "64"}

TOKENWORKS = Path(sys.executable).with_name("tokenworks")
TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent
LONG = ("serve", "worker", "control", "clients", "cli", "chaos", "gateway")
"""Where files take longest: they begin first, so that no process is alone with one of them at the end."""
PATIENCE = 120.0
"""Seconds; only against hangs: a shared machine may be slow."""

ECHO = """
[installation]
region = "eu-west"
jurisdiction = "EU"
retention = 0
trains = false
[models.echo]
engine = "echo"
policy = {cache_max = "1h"}
"""


@dataclass
class Server:
    """A running `tokenworks serve`. `url` has no path."""

    process: subprocess.Popen[str]
    url: str
    data_dir: Path
    api_key: str
    admin_key: str
    models: list[str]

    def call(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> tuple[int, Any]:
        """Status and JSON of one request, with the API key unless another is given."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {key or self.api_key}", "content-type": "application/json"}
        try:
            with urlopen(Request(self.url + path, data, headers, method=method), timeout=PATIENCE) as response:
                return response.status, json.loads(response.read() or b"null")
        except HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")

    def chat(self, text: str, **more: Any) -> tuple[int, Any]:
        body = {"model": self.models[0], "messages": [{"role": "user", "content": text}], **more}
        return self.call("POST", "/v1/chat/completions", body)

    def processes(self) -> dict[str, int]:
        """Every descendant's pid by what it is: control, gateway, worker, or its module's name."""
        return {_name(pid): pid for pid in _descendants(self.process.pid)}

    def log(self, name: str) -> str:
        return (self.data_dir / "logs" / f"{name}.log").read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def wait_until(condition: Callable[[], Any], what: str = "it to happen", patience: float = PATIENCE) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError):
            if value := condition():
                return value
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """A zombie is dead: in a container nobody may reap an orphan."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                parents[int(stat.parent.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def _name(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    module = words[words.index("-m") + 1] if "-m" in words else words[0]
    return module.removeprefix("tokenworks.")


def environment(**more: str) -> dict[str, str]:
    """This process's, without settings of ours, and with the cache of weights that the whole suite shares."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOKENWORKS_")}
    cache = os.environ.get("TOKENWORKS_CACHE_DIR") or str(REPOSITORY / ".cache")
    return {**kept, "TOKENWORKS_CACHE_DIR": cache, "NO_COLOR": "1", **more}


def launch(data_dir: Path, *options: str, cwd: Path | None = None, **more: str) -> subprocess.Popen[str]:
    """`tokenworks serve` on a free port, its errors in DATA_DIR.err."""
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with data_dir.with_suffix(".err").open("a") as errors:
        return subprocess.Popen(
            [str(TOKENWORKS), "serve", "--data-dir", str(data_dir), "--json", *options],
            env=environment(**{"TOKENWORKS_PORT": "0", **more}),
            cwd=cwd or data_dir.parent,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )


def await_ready(process: subprocess.Popen[str], data_dir: Path) -> Server:
    assert process.stdout is not None
    answered, _, _ = select.select([process.stdout], [], [], PATIENCE)
    assert answered, f"not ready after {PATIENCE} s: {data_dir.with_suffix('.err').read_text()}"
    line = process.stdout.readline()
    assert line, f"ended with code {process.wait(PATIENCE)}: {data_dir.with_suffix('.err').read_text()}"
    ready = json.loads(line)
    keys = json.loads((data_dir / "bootstrap.json").read_text())
    url = ready["base_url"].removesuffix("/v1")
    return Server(process, url, data_dir, ready["api_key"], keys["admin_key"], ready["models"])


@contextlib.contextmanager
def serving(data_dir: Path, *options: str, **more: Any) -> Iterator[Server]:
    """A ready server; nothing of it is left afterwards."""
    process = launch(data_dir, *options, **more)
    try:
        yield await_ready(process, data_dir)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="session", name="wait_until")
def _wait_until() -> Callable[..., Any]:
    """`wait_until(condition, what)`: the condition's first true value."""
    return wait_until


@pytest.fixture(scope="session", name="alive")
def _alive() -> Callable[[int], bool]:
    return alive


@pytest.fixture(scope="session")
def serve() -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """`with serve(data_dir, *options, cwd=..., **environment) as server`."""
    return serving


@pytest.fixture(scope="session")
def echo_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "echo.toml"
    path.write_text(ECHO)
    return path


@pytest.fixture(scope="session")
def echo_server(tmp_path_factory: pytest.TempPathFactory, echo_config: Path) -> Iterator[Server]:
    """Shared by the whole session: leave it running and its bootstrap key valid."""
    with serving(tmp_path_factory.mktemp("echo") / "data", "--config", str(echo_config)) as server:
        yield server


@pytest.fixture(scope="session")
def smollm2_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real model, by default options. Shared by the whole session."""
    with serving(tmp_path_factory.mktemp("smollm2") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Shared by the whole session: leave it running. `postgres.database()` makes an empty database."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """For tests that kill or pause it."""
    with running_postgres() as server:
        yield server


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """File by file, folder by folder, for what they share."""
    ranks = {TESTS / name: rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: (min(ranks.get(each, len(LONG)) for each in item.path.parents), item.path))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("both_databases") and "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", ["sqlite", "postgresql"], scope="session")


@pytest.fixture(scope="session")
def backend() -> str:
    """Which database: SQLite, or with the marker `both_databases` one after the other."""
    return "sqlite"
