"""Bytes of the snapshot stream: u32 little-endian length, then one `Frame` in MessagePack. Pure, no I/O."""

import struct
from collections.abc import Iterator

import msgspec

from tokenworks.snapshot.records import Frame

MAX_FRAME = 256 * 1024 * 1024
"""Bytes. A full state with 100,000 keys takes about 20 MB; more than this length is garbage."""

_LENGTH = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)


class FrameError(ValueError):
    """The stream is not a snapshot stream, or not one that this version understands."""


def encode(frame: Frame) -> bytes:
    payload = _encoder.encode(frame)
    if len(payload) > MAX_FRAME:
        raise FrameError(f"a snapshot frame of {len(payload)} bytes is over the limit of {MAX_FRAME}")
    return _LENGTH.pack(len(payload)) + payload


class Reader:
    """Give it the chunks as they come; it yields each frame once its last byte is there."""

    def __init__(self, max_frame: int = MAX_FRAME) -> None:
        self._max = max_frame
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        buffer = self._buffer
        buffer += chunk
        start = 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if not 0 < length <= self._max:
                    raise FrameError(f"a snapshot frame claims {length} bytes; allowed are 1 to {self._max}")
                end = start + _LENGTH.size + length
                if len(buffer) < end:
                    break
                with memoryview(buffer)[start + _LENGTH.size : end] as payload:
                    start = end
                    frame = _decode(payload)
                yield frame
        finally:
            del buffer[:start]


def _decode(payload: memoryview) -> Frame:
    try:
        return _decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise FrameError(f"a snapshot frame cannot be read: {error}") from error
