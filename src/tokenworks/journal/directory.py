"""The journal's directory besides the segments: its lock, the gateway's id, the acknowledged position, the reserve."""

import contextlib
import fcntl
import logging
import os
import re
import secrets
from pathlib import Path

from tokenworks.core.files import write_atomically

_GATEWAY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

log = logging.getLogger(__name__)


class JournalLocked(Exception):
    """Another process has this journal open."""


def lock(directory: Path) -> int:
    """Take the directory for this process; returns the descriptor that holds it until it is closed."""
    path = directory / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise JournalLocked(
            f"journal {directory} is in use by process {owner}: stop it, or give this gateway another data directory"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def gateway_id(directory: Path) -> str:
    """The id under which this journal is known to control; made with the journal."""
    path = directory / "gateway_id"
    with contextlib.suppress(FileNotFoundError):
        text = path.read_text().strip()
        if not _GATEWAY_ID.fullmatch(text):
            raise ValueError(f"{path} does not hold a gateway id: {text[:80]!r}")
        return text
    return save_gateway_id(directory, new_gateway_id())


def new_gateway_id() -> str:
    return f"gw_{secrets.token_hex(12)}"


def save_gateway_id(directory: Path, text: str) -> str:
    if not _GATEWAY_ID.fullmatch(text):
        raise ValueError(f"gateway_id {text[:80]!r}: use 1 to 64 letters, digits, - and _")
    write_atomically(directory / "gateway_id", text.encode())
    return text


def load_position(directory: Path) -> int:
    """The first record that control has not acknowledged. 0 when unknown: it is only ever sent twice, never lost."""
    path = directory / "acknowledged"
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return 0
    except ValueError:
        log.warning("%s is damaged: what control has already is sent again", path)
        return 0


def save_position(directory: Path, position: int) -> None:
    write_atomically(directory / "acknowledged", b"%d" % position, sync=False)


class Reserve:
    """Disk space held back, so that requests already admitted can be settled when the disk is full."""

    def __init__(self, directory: Path, size: int) -> None:
        self._path = directory / "reserve"
        self._size = size

    def make(self) -> bool:
        """Hold the space (real blocks, not a hole); False when the disk has not that much."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size == self._size:
                return True
        try:
            write_atomically(self._path, bytes(self._size), sync=False)
        except OSError:
            return False
        return True

    def release(self) -> bool:
        """Give the space back to the file system; False when it was given back before."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True
