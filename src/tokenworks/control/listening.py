"""The socket control answers on. Bound before anything else is done, so that a second start changes nothing."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tokenworks.client import Address
from tokenworks.control.startup import StartupError

LONGEST_PATH = 100
"""Bytes of a Unix socket's path; the system's own limit is 108, on some 104."""


@contextmanager
def exclusive(data_dir: Path) -> Iterator[None]:
    """Hold the data directory, made when missing, for this process."""
    path = data_dir / "control.lock"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartupError(f"cannot write to the data directory {data_dir}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            raise StartupError(
                f"data directory {data_dir} is in use by process {owner}: stop it, or choose another --data-dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


@contextmanager
def bound(address: Address) -> Iterator[socket.socket]:
    """Bound, not yet listening. A Unix socket has mode 0600 and is removed at the end."""
    try:
        listener = _unix(Path(address.socket)) if address.socket else _tcp(address)
    except OSError as error:
        raise StartupError(f"cannot listen on {address}: {error.strerror or error}") from error
    try:
        yield listener
    finally:
        listener.close()
        if address.socket:
            with contextlib.suppress(OSError):
                Path(address.socket).unlink()


def _tcp(address: Address) -> socket.socket:
    parts = urlsplit(address.origin)
    family, kind, protocol, _, place = socket.getaddrinfo(
        parts.hostname, 80 if parts.port is None else parts.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
    except OSError:
        listener.close()
        raise
    return listener


def _unix(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise OSError(errno.ENAMETOOLONG, f"the path is longer than {LONGEST_PATH} bytes")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _remove_dead(path: Path) -> None:
    """What a killed process left behind. OSError when somebody answers there, or it is no socket."""
    if not path.exists():
        return
    if not path.is_socket():
        raise FileExistsError(errno.EEXIST, "a file that is not a socket is in the way")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
