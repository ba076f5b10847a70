"""Control as a real process on a real Unix socket, and an empty database of the newest schema."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenworks.control.storage import migrate
from tokenworks.control.storage.database import Database, sqlite_url
from tokenworks.journal.records import Opened, Progress, Settled, UsageRecord
from tokenworks.snapshot.sealing import internal_token, read_cluster_key

PATIENCE = 30.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


class Answer:
    def __init__(self, status: int, raw: bytes) -> None:
        self.status = status
        self.raw = raw

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> Any:
        return self.json["error"]


class ControlProcess:
    def __init__(self, data_dir: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.socket = data_dir / "run" / "control.sock"
        self.address = f"unix:{self.socket}"
        self.options = list(options)
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self) -> None:
        self._process = subprocess.Popen(self._command(), env=self._environment, stderr=subprocess.PIPE)

    def start(self) -> "ControlProcess":
        """Returns when it answers."""
        self.spawn()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if self.internal("GET", "/internal/v1/health").status == 200:
                    return self
            except (OSError, ValueError):
                assert self._process.poll() is None, self._process.stderr.read().decode()
            assert time.monotonic() < deadline, "control does not answer"
            time.sleep(0.02)

    def run(self) -> tuple[int, str]:
        """For a start that fails: exit code and standard error."""
        done = subprocess.run(self._command(), env=self._environment, capture_output=True, timeout=PATIENCE)
        return done.returncode, done.stderr.decode()

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        code = self._process.wait(PATIENCE)
        self._process.stderr.close()
        self._process = None
        return code

    def close(self) -> None:
        if self._process is not None:
            self.stop(signal.SIGKILL)

    @property
    def bootstrap(self) -> dict[str, str]:
        return json.loads((self.data_dir / "bootstrap.json").read_text())

    @property
    def token(self) -> str:
        return internal_token(read_cluster_key(self.data_dir / "cluster.key"))

    def admin(self, method: str, path: str, body: Any = None) -> Answer:
        return self.call(method, path, body, self.bootstrap["admin_key"])

    def internal(self, method: str, path: str, body: Any = None) -> Answer:
        return self.call(method, path, body, self.token)

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> Answer:
        connection = _UnixConnection(str(self.socket))
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "tokenworks.control", "--data-dir", str(self.data_dir), *self.options]


class Make:
    """Journal records and heartbeats."""

    @staticmethod
    def opened(number: int, attempt: int = 1, at: int = 1_700_000_000_000_000_000, key_id: str = "key_x") -> Opened:
        names = ("proj", "org", "openai_chat", "m", "up", "provider", "m-1", True)
        return Opened(f"req_{number:06d}", attempt, at + number, key_id, *names)

    @staticmethod
    def progress(number: int, output: int, attempt: int = 1) -> Progress:
        return Progress(f"req_{number:06d}", attempt, UsageRecord(input=7, output=output), charge=10 * output)

    @staticmethod
    def settled(
        number: int, attempt: int = 1, at: int = 1_700_000_001_000_000_000, outcome: str = "completed"
    ) -> Settled:
        usage = UsageRecord(input=7, cached_input=1, cache_write=2, output=99, reasoning=3)
        return Settled(
            f"req_{number:06d}", attempt, at + number, outcome, usage, 990, 200, "", "stop", 5, 1_000_000_000, True
        )

    @staticmethod
    def heartbeat(state: str = "ready", **fields: Any) -> dict[str, Any]:
        return {
            "model": "smollm2-135m",
            "provider": "local/llama_server",
            "protocols": ["openai_chat"],
            "base_url": "unix:/tmp/worker.sock|/v1",
            "state": state,
            **fields,
        }


@pytest.fixture(scope="session")
def make() -> type[Make]:
    return Make


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A Unix socket's path must be short, and pytest's are not."""
    path = Path(tempfile.mkdtemp(prefix="twc"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def control(short_dir: Path) -> Iterator[Callable[..., ControlProcess]]:
    """Makes a process (not started) on the test's data directory."""
    made: list[ControlProcess] = []

    def build(*options: str, environment: dict[str, str] | None = None) -> ControlProcess:
        made.append(ControlProcess(short_dir, *options, environment=environment))
        return made[-1]

    yield build
    for process in made:
        process.close()


@pytest.fixture(scope="package")
def running() -> Iterator[ControlProcess]:
    """One process for all tests that leave it as it was, or do not mind."""
    path = Path(tempfile.mkdtemp(prefix="twc"))
    process = ControlProcess(path, "--local-model", "smollm2-135m").start()
    yield process
    assert process.stop() == 0
    shutil.rmtree(path)


@pytest.fixture
def with_database(tmp_path: Path) -> Callable[[Callable[[Database], Coroutine[Any, Any, Any]]], Any]:
    """Runs a coroutine function with an empty database of the newest schema."""

    def run(work: Callable[[Database], Coroutine[Any, Any, Any]]) -> Any:
        async def whole() -> Any:
            path = Path(tempfile.mkdtemp(dir=tmp_path)) / "control.db"
            database = Database(sqlite_url(path))
            try:
                await migrate.upgrade(database)
                return await work(database)
            finally:
                await database.close()

        return asyncio.run(whole())

    return run
