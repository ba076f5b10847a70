"""The last state on disk, so that a gateway starts and serves while control is away."""

import hashlib
import logging
from pathlib import Path

import msgspec

from tokenworks.core.files import write_atomically
from tokenworks.snapshot.framing import FrameError
from tokenworks.snapshot.records import Full
from tokenworks.snapshot.state import State

MAGIC = b"tokenworks-snapshot\n"
_DIGEST_BYTES = hashlib.sha256().digest_size

log = logging.getLogger(__name__)


def save(path: Path, state: State) -> None:
    """Mode 0600: it holds key digests and sealed credentials. OSError when it cannot be written."""
    payload = msgspec.msgpack.encode(state.full())
    write_atomically(path, MAGIC + hashlib.sha256(payload).digest() + payload)


def load(path: Path) -> State | None:
    """None when there is no copy, or none that can be used; the latter is reported."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("snapshot %s cannot be read (%s): waiting for control", path, error.strerror)
        return None
    start = len(MAGIC) + _DIGEST_BYTES
    payload = raw[start:]
    if not raw.startswith(MAGIC) or hashlib.sha256(payload).digest() != raw[len(MAGIC) : start]:
        log.warning("snapshot %s is damaged and ignored: waiting for control", path)
        return None
    try:
        return State().apply(msgspec.msgpack.decode(payload, type=Full))
    except (msgspec.MsgspecError, FrameError) as error:
        log.warning("snapshot %s is of another version and ignored (%s): waiting for control", path, error)
        return None
