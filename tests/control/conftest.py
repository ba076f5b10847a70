"""Control as a real process on a real Unix socket, and an empty database of the newest schema."""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import struct
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy.engine import make_url
from tests.control.forking import Fork, origin

from tokenworks.batches.records import LEASE_PATH, LeaseAnswer, LeaseCall, LineRecord, ResultRecord
from tokenworks.control.storage import migrate
from tokenworks.control.storage.database import Database, sqlite_url
from tokenworks.journal import framing
from tokenworks.journal.records import Opened, Progress, Settled, UsageRecord
from tokenworks.snapshot.records import Frame
from tokenworks.snapshot.sealing import internal_token, read_cluster_key
from tokenworks.snapshot.state import State

PATIENCE = 120.0


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
        self._process: Fork | None = None

    def spawn(self) -> None:
        self._process = origin().fork(["--data-dir", str(self.data_dir), *self.options], self._environment)

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
        self.spawn()
        code = self._process.wait(PATIENCE)
        with self._process.stderr as said:
            return code, said.read().decode()

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

    def call(
        self, method: str, path: str, body: Any = None, token: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = _UnixConnection(str(self.socket))
        headers = dict(headers or {})
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def published(self) -> State:
        """What the first frame tells that a gateway gets."""
        with self.frames() as frames:
            return State().apply(next(frames))

    @contextlib.contextmanager
    def frames(self) -> Iterator[Iterator[Frame]]:
        """All that a gateway is told, as it comes."""
        with contextlib.closing(_UnixConnection(str(self.socket))) as connection:
            connection.request("GET", "/internal/v1/snapshot", headers={"authorization": f"Bearer {self.token}"})
            with connection.getresponse() as stream:

                def read() -> Frame:
                    (length,) = struct.unpack("<I", stream.read(4))
                    return msgspec.msgpack.decode(stream.read(length), type=Frame)

                yield iter(read, None)

    def charge(self, request_id: str, organization_id: str, charge: int, **fields: Any) -> None:
        """One attempt that ended, as a gateway tells of it. `fields` of its records go before what is made up."""
        opened = {
            "attempt": 1, "at": 1_790_000_000 * 10**9, "key_id": "key_a", "project_id": "proj_a", "protocol": "proto",
            "model": "m", "upstream": "up", "provider": "provider", "upstream_model": "um",
            **{name: value for name, value in fields.items() if name in Opened.__struct_fields__},
        }  # fmt: skip
        ended = {
            "attempt": opened["attempt"], "at": opened["at"] + 5, "outcome": "completed",
            **{name: value for name, value in fields.items() if name in Settled.__struct_fields__ and name != "at"},
        }  # fmt: skip
        body = bytearray()
        framing.append(body, Opened(request_id, organization_id=organization_id, **opened))
        if not fields.get("opened_only"):
            framing.append(body, Settled(request_id, charge=charge, **ended))
        gateway = f"gw_{request_id}_{opened['attempt']}"
        assert self.internal("POST", f"/internal/v1/journal/{gateway}?first=0", bytes(body)).status == 200


class Project:
    """Calls control as a gateway does on behalf of a key."""

    def __init__(self, control: ControlProcess, project_id: str | None = None) -> None:
        self.control = control
        [key] = control.admin("GET", "/admin/v1/keys").json["data"][-1:]
        self.headers = {
            "x-tokenworks-project": project_id or key["project_id"],
            "x-tokenworks-key": key["id"],
            "x-tokenworks-origin": "http://public.example",
        }

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        path = f"/internal/v1/objects{path}"
        return self.control.call(method, path, body, self.control.token, {**self.headers, **headers})

    def upload(self, data: bytes, purpose: str | None = "batch", **fields: str) -> Answer:
        fields = {**({"purpose": purpose} if purpose is not None else {}), **fields}
        parts = [
            f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
        ]
        parts.append('--x\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n')
        body = "".join(parts).encode() + data + b"\r\n--x--\r\n"
        return self.call("POST", "/v1/files", body, **{"content-type": "multipart/form-data; boundary=x"})

    def batch(self, lines: bytes, **changes: Any) -> dict[str, Any]:
        body = {"endpoint": "/v1/chat/completions", "completion_window": "24h", **changes}
        body.setdefault("input_file_id", self.upload(lines).json["id"])
        made = self.call("POST", "/v1/batches", body)
        assert made.status == 200, made.raw
        return made.json

    def until(self, batch_id: str, *statuses: str, path: str = "/v1/batches", name: str = "status") -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while (batch := self.call("GET", f"{path}/{batch_id}").json)[name] not in statuses:
            assert time.monotonic() < deadline, batch
            time.sleep(0.02)
        return batch

    def content(self, file_id: str) -> list[Any]:
        return [json.loads(line) for line in self.call("GET", f"/v1/files/{file_id}/content").raw.splitlines()]

    def turn(self, gateway_id: str = "gw_1", n: int = 0, **more: Any) -> list[LineRecord]:
        """One lease call: the lines it gave."""
        call = msgspec.msgpack.encode(LeaseCall(gateway_id, n, **more))
        answer = self.control.call("POST", LEASE_PATH, call, self.control.token)
        assert answer.status == 200, answer.raw
        return list(msgspec.msgpack.decode(answer.raw, type=LeaseAnswer).lines)

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """For what only time would bring."""
        with (
            contextlib.closing(sqlite3.connect(self.control.data_dir / "control.db", timeout=30)) as database,
            database,
        ):
            return database.execute(statement, values).fetchall()


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
    def result(line: LineRecord, body: bytes = b"{}", status: int = 200, **usage: int) -> ResultRecord:
        return ResultRecord(line.batch, line.number, status, body, **usage)

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


@pytest.fixture(scope="session", autouse=True)
def _one_origin() -> Iterator[None]:
    yield
    if origin.cache_info().currsize:
        origin().close()
        origin.cache_clear()


@pytest.fixture(scope="session")
def make() -> type[Make]:
    return Make


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A Unix socket's path must be short, and pytest's are not."""
    path = Path(tempfile.mkdtemp(prefix="twc"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def database_options(backend: str, request: pytest.FixtureRequest) -> list[str]:
    """Options of a control on a new database."""
    return [] if backend == "sqlite" else ["--database", request.getfixturevalue("postgres").database()]


@pytest.fixture
def control(short_dir: Path, backend: str, request: pytest.FixtureRequest) -> Iterator[Callable[..., ControlProcess]]:
    """Makes a process (not started) on the test's data directory."""
    made: list[ControlProcess] = []
    database = [] if backend == "sqlite" else ["--database", request.getfixturevalue("postgres").database()]

    def build(*options: str, environment: dict[str, str] | None = None) -> ControlProcess:
        options = (*database, *options)
        made.append(ControlProcess(short_dir, *options, environment=environment))
        return made[-1]

    yield build
    for process in made:
        process.close()


@pytest.fixture(scope="session")
def control_process() -> Callable[..., contextlib.AbstractContextManager[ControlProcess]]:
    """`with control_process(*options, environment=None) as process`, for one that a whole module shares."""

    @contextlib.contextmanager
    def build(*options: str, environment: dict[str, str] | None = None) -> Iterator[ControlProcess]:
        path = Path(tempfile.mkdtemp(prefix="twc"))
        process = ControlProcess(path, *options, environment=environment)
        try:
            yield process.start()
        finally:
            process.close()
            shutil.rmtree(path)

    return build


@pytest.fixture(scope="module")
def project(running: ControlProcess) -> Project:
    """The one of the shared process."""
    return Project(running)


@pytest.fixture(scope="session")
def project_of() -> type[Project]:
    """`project_of(control, project_id)`"""
    return Project


@pytest.fixture(scope="module")
def running() -> Iterator[ControlProcess]:
    """One process for all tests of a file that leave it as it was, or do not mind."""
    path = Path(tempfile.mkdtemp(prefix="twc"))
    process = ControlProcess(path, "--local-model", "smollm2-135m").start()
    yield process
    assert process.stop() == 0
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def migrated_template(postgres: Any) -> str:
    """The name of a PostgreSQL database of the newest schema, to make others from."""
    url = postgres.database()
    asyncio.run(_migrate(url))
    return make_url(url).database


async def _migrate(url: str) -> None:
    database = Database(url)
    try:
        await migrate.upgrade(database)
    finally:
        await database.close()


@pytest.fixture
def database_url(tmp_path: Path, backend: str, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes an empty database of the newest schema."""

    def make() -> str:
        if backend == "postgresql":
            template = request.getfixturevalue("migrated_template")
            return request.getfixturevalue("postgres").database(template)
        url = sqlite_url(Path(tempfile.mkdtemp(dir=tmp_path)) / "control.db")
        asyncio.run(_migrate(url))
        return url

    return make


@pytest.fixture
def with_database(database_url: Callable[[], str]) -> Callable[[Callable[[Database], Coroutine[Any, Any, Any]]], Any]:
    """Runs a coroutine function with an empty database of the newest schema."""

    def run(work: Callable[[Database], Coroutine[Any, Any, Any]]) -> Any:
        url = database_url()

        async def whole() -> Any:
            database = Database(url)
            try:
                return await work(database)
            finally:
                await database.close()

        return asyncio.run(whole())

    return run
