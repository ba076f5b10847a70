"""A real PostgreSQL server of one's own, for tests and benchmarks."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PATIENCE = 60.0


class PostgresServer:
    """A PostgreSQL of the tests' own, on a Unix socket in a directory of its own; nothing survives it.

    Its settings are fast, yet a commit survives `kill -9`, only not a power cut. As root it runs as user postgres,
    for it refuses to run as root.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._data = directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0

    def make(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")
        self.directory.chmod(0o700)
        command = [_postgres("initdb"), "--pgdata", str(self._data), "--username", "postgres", "--auth", "trust"]
        command += ["--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.directory, **_as_postgres())
        assert done.returncode == 0, done.stderr

    def start(self, *settings: str) -> None:
        """`settings`: "name=value"."""
        fast = ("fsync=off", "full_page_writes=off", "listen_addresses=", "shared_buffers=64MB", "max_connections=60")
        command = [_postgres("postgres"), "-D", str(self._data), "-k", str(self.directory)]
        command += [part for setting in (*fast, *settings) for part in ("-c", setting)]
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.directory, **_as_postgres(), start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        while (error := self._sql("SELECT 1", "postgres")) is not None:
            assert time.monotonic() < deadline, error
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # its fast shutdown
            self._process.wait(PATIENCE)

    def kill(self) -> None:
        """kill -9 of all its processes."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(PATIENCE)
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        for pid in (self._process.pid, *_children(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def database(self, template: str = "template0") -> str:
        """A new database; returns its URL."""
        self._databases += 1
        name = f"test_{self._databases}"
        error = self._sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log", "postgres")
        assert error is None, error
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={self.directory}"

    def sql(self, statement: str, url: str) -> list[list[str]]:
        """Rows as text, by PostgreSQL's own client."""
        command = [_postgres("psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statement]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [line.split("|") for line in done.stdout.splitlines()]

    def _sql(self, statement: str, name: str) -> str | None:
        """What went wrong."""
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "server.log").read_text()
        command = [_postgres("psql"), "-XqAt", "-d", self.url(name), "-c", statement]
        done = subprocess.run(command, capture_output=True, text=True)
        return None if done.returncode == 0 else done.stderr


def _postgres(program: str) -> str:
    """Debian keeps the server's programs of each version in a folder of its own."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    found = shutil.which(program, path=os.pathsep.join([*map(str, places), os.environ.get("PATH", "")]))
    assert found, "apt-get install postgresql: make services does it"
    return found


def _children(pid: int) -> list[int]:
    """Backends are all the server's own children."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def _as_postgres() -> dict[str, Any]:
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


@contextlib.contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory(prefix="tw-pg-", ignore_cleanup_errors=True) as name:
        server = PostgresServer(Path(name))
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()
