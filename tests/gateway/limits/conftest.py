"""A real Valkey or Redis server on a Unix socket, started by the tests."""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError


@dataclass
class LimitServer:
    """`url` for redis-py; `kill` and `start` for what happens to servers."""

    directory: Path
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"unix://{self.directory}/server.sock"

    def client(self) -> "Redis[str]":
        return Redis.from_url(self.url)

    def start(self) -> None:
        self.process = start_server(self.directory)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def start_server(directory: Path) -> "subprocess.Popen[bytes]":
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    assert program, "apt-get install redis-server (or valkey): make setup does it"
    command = [program, "--port", "0", "--unixsocket", f"{directory}/server.sock", "--dir", str(directory)]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while True:
        try:
            with Redis.from_url(f"unix://{directory}/server.sock") as client:
                client.ping()
                return process
        except RedisConnectionError:
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)


@contextlib.contextmanager
def started() -> Iterator[LimitServer]:
    with tempfile.TemporaryDirectory(prefix="tw-valkey-") as name:
        server = LimitServer(Path(name), start_server(Path(name)))
        try:
            yield server
        finally:
            server.kill()


@pytest.fixture(scope="session")
def limit_server() -> Iterator[LimitServer]:
    with started() as server:
        yield server


@pytest.fixture
def valkey(limit_server: LimitServer) -> LimitServer:
    with limit_server.client() as client:
        client.flushall()
    return limit_server
