import os
import struct
import zlib
from pathlib import Path

import pytest

from tokenworks.journal import framing, segment
from tokenworks.journal.framing import FrameError


def write(directory: Path, first: int, data: bytes) -> Path:
    made, descriptor = segment.create(directory, first)
    os.write(descriptor, data)
    os.close(descriptor)
    assert made.path.stat().st_mode & 0o777 == 0o600
    return made.path


def test_what_was_written_is_loaded(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    buffer = bytearray(segment.header(41))
    framing.append(buffer, make.opened(1))
    framing.append(buffer, make.settled(1))
    seen: list[object] = []
    loaded = segment.load(write(tmp_path, 41, bytes(buffer)), seen.append)
    assert loaded is not None
    assert seen == [make.opened(1), make.settled(1)]
    assert (loaded.first, loaded.end, loaded.head, loaded.size) == (41, 43, 41, len(buffer))


def test_a_header_cut_or_flipped_anywhere_is_not_sound(tmp_path: Path) -> None:
    whole = segment.header(1)
    for place in range(len(whole)):
        for number, data in enumerate([whole[:place], whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]]):
            assert segment.load(write(tmp_path, 10 * place + number, data), print) is None


def test_another_version_is_never_skipped(tmp_path: Path) -> None:
    fields = struct.pack("<8sIQ", segment.MAGIC, 99, 1)
    path = write(tmp_path, 1, fields + struct.pack("<I", zlib.crc32(fields)))
    with pytest.raises(FrameError, match="version 99"):
        segment.load(path, print)


def test_a_sound_frame_of_a_newer_gateway_is_never_skipped(tmp_path: Path) -> None:
    payload = b"\x81\xa4type\xa7unheard"
    path = write(tmp_path, 1, segment.header(1) + struct.pack("<II", len(payload), zlib.crc32(payload)) + payload)
    with pytest.raises(FrameError, match=r"record 1: .*newer gateway"):
        segment.load(path, print)
