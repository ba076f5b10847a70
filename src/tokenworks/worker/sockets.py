"""Listening sockets: Unix ones that only their owner may open, TCP ones, and errors that say what is in the way."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

from tokenworks.client import Address

BACKLOG = 2048
LONGEST_UNIX_PATH = 100
"""Bytes: the kernels' limits are 104 to 108."""


class AddressInUse(Exception):
    """The address cannot be listened on; the message names it and the cause."""


def clear(path: Path) -> None:
    """Make way for a Unix socket: remove a stale one. AddressInUse when somebody answers there, or it is no socket."""
    if len(str(path).encode()) > LONGEST_UNIX_PATH:
        raise AddressInUse(f"unix:{path} is longer than {LONGEST_UNIX_PATH} bytes: choose a shorter directory")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        return
    if not path.is_socket():
        raise AddressInUse(f"{path} exists and is no socket: remove it or choose another address")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise AddressInUse(f"unix:{path}: {error.strerror or error}") from error
    raise AddressInUse(f"unix:{path} is in use by another process")


def listen(address: Address) -> socket.socket:
    """A listening socket. AddressInUse when it cannot be had."""
    try:
        if address.socket is None:
            return _listen_tcp(address)
        path = Path(address.socket)
        clear(path)
        found = socket.socket(socket.AF_UNIX)
        found.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        raise AddressInUse(f"cannot listen on {address}: {error.strerror or error}") from error
    found.listen(BACKLOG)
    return found


def _listen_tcp(address: Address) -> socket.socket:
    host, port = host_and_port(address)
    return socket.create_server((host, port), family=_family(host), backlog=BACKLOG)


def free_port(address: Address) -> Address:
    """The same host with a port that was free a moment ago, when the address has none."""
    host, port = host_and_port(address)
    if port:
        return address
    with socket.create_server((host, 0), family=_family(host)) as found:
        return Address.parse(f"http://{f'[{host}]' if ':' in host else host}:{found.getsockname()[1]}")


def host_and_port(address: Address) -> tuple[str, int]:
    parts = urlsplit(address.origin)
    return parts.hostname or "127.0.0.1", parts.port or 0


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
