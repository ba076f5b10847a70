"""One file of the journal: a header with the number of its first record, then frames. Only ever appended to."""

import logging
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tokenworks.journal.framing import FrameError, decode, frames
from tokenworks.journal.records import VERSION, Record

MAGIC = b"TWJOURNL"
SUFFIX = ".journal"

_FIELDS = struct.Struct("<8sIQ")
_CHECKSUM = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CHECKSUM.size

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Segment:
    """Records `first` to `end` - 1. Its first records, up to `head`, make every older segment superfluous."""

    path: Path
    first: int
    end: int
    head: int
    size: int


def header(first: int) -> bytes:
    fields = _FIELDS.pack(MAGIC, VERSION, first)
    return fields + _CHECKSUM.pack(zlib.crc32(fields))


def create(directory: Path, first: int) -> tuple[Segment, int]:
    """A new, empty segment and its descriptor; the caller writes the header together with the first frames."""
    path = directory / f"{first:020d}{SUFFIX}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    return Segment(path, first, end=first, head=first, size=0), descriptor


def load(path: Path, visit: Callable[[Record], None]) -> Segment | None:
    """Visit every record up to the first unsound frame. None when not even the header is sound.

    FrameError when the file is sound but of another version: its records are bills, so nothing skips them.
    """
    data = memoryview(path.read_bytes())
    if len(data) < HEADER_BYTES or _CHECKSUM.unpack_from(data, _FIELDS.size)[0] != zlib.crc32(data[: _FIELDS.size]):
        return None
    magic, version, first = _FIELDS.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise FrameError(f"{path} is a journal of version {version}, this gateway reads {VERSION}: use the newer one")
    segment = Segment(path, first, end=first, head=first, size=HEADER_BYTES)
    for begin, end in frames(data, HEADER_BYTES):
        try:
            visit(decode(data[begin:end]))
        except FrameError as error:
            raise FrameError(f"{path}, record {segment.end}: {error}: was it written by a newer gateway?") from error
        segment.end += 1
        segment.size = end
    if segment.size < len(data):
        log.warning("%s: the last %d bytes, after record %d, are torn", path, len(data) - segment.size, segment.end - 1)
    return segment


def set_aside(path: Path) -> None:
    """Out of the journal's way, kept for people to look at."""
    aside = path.with_suffix(".damaged")
    log.error("journal segment %s cannot be read and is kept as %s", path, aside.name)
    path.rename(aside)
