"""What must be true before anything starts: a free port, and a data directory that is ours to write.

Both are checked first and quickly, so that a wrong option costs a line and not a download.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LONGEST_SOCKET_PATH = 100
"""Linux allows 107 bytes, macOS 103."""
LONGEST_SOCKET_NAME = 40
ENGINE_SUFFIX = "-engine"
"""What a worker adds to its own name for the socket of its engine."""


class CannotServe(Exception):
    """The machine does not allow it; the message says what is wrong and what to do."""


def claim_port(host: str, port: int) -> int:
    """The port to listen on (`port`, or a free one for 0). CannotServe when the gateway could not listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise CannotServe(f"cannot listen on host {host!r}: {error.strerror}; give an address with --host") from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            raise CannotServe(_why_not(error, host, port)) from error
        return int(probe.getsockname()[1])


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        other = port + 1 if port < 65535 else port - 1
        return f"port {port} on {host} is in use; choose another with --port (for instance --port {other})"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs privileges this user does not have; choose one above 1023 with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; give one with --host (0.0.0.0 for all)"
    return f"cannot listen on {host} port {port}: {error.strerror}"


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """Where everything of one installation lies. Paths only; `prepare` makes them."""

    root: Path
    run: Path
    """Sockets; elsewhere when the path under `root` would be too long for one."""

    @property
    def cluster_key(self) -> Path:
        return self.root / "cluster.key"

    @property
    def bootstrap(self) -> Path:
        return self.root / "bootstrap.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def gateway(self) -> Path:
        return self.root / "gateway"

    def address(self, name: str) -> str:
        return f"unix:{self.run / name}.sock"


def prepare(path: Path) -> DataDirectory:
    """Make the data directory and its parts, private to this user. CannotServe when it cannot be written."""
    root = path.expanduser().absolute()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = root / f".write-test.{secrets.token_hex(4)}"
        probe.write_bytes(b"x")
        probe.unlink()
        directory = DataDirectory(root, _run_directory(root))
        for part in (directory.run, directory.logs, directory.gateway):
            part.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise CannotServe(
            f"cannot write to the data directory {path}: {_reason(error)}; choose another with --data-dir"
        ) from error
    owner = directory.run.lstat()
    if directory.run.is_symlink() or owner.st_uid != os.getuid() or owner.st_mode & 0o077:
        raise CannotServe(f"{directory.run} is open to other users; remove it, or chmod 700 it if it is yours")
    return directory


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{error.filename} is not a directory"
    return error.strerror or str(error)


def _run_directory(root: Path) -> Path:
    run = root / "run"
    longest = len(os.fsencode(run)) + LONGEST_SOCKET_NAME + len(f"/{ENGINE_SUFFIX}.sock")
    if longest <= LONGEST_SOCKET_PATH:
        return run
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"tokenworks-{os.getuid()}-{digest}"


@contextlib.contextmanager
def exclusive(directory: DataDirectory) -> Iterator[None]:
    """Hold the data directory's lock: it dies with this process, however that dies."""
    lock = directory.root / "serve.lock"
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CannotServe(
                f"the data directory {directory.root} is in use by another `tokenworks serve`"
                f" (pid {file.read().strip() or 'unknown'}); stop it, or choose another with --data-dir"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        for leftover in directory.run.glob("*.sock"):
            leftover.unlink(missing_ok=True)
        yield
