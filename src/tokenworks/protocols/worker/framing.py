"""Bytes of a stream: u32 little-endian length, then one record in MessagePack. Pure, no I/O."""

import struct
from typing import Generic, TypeVar

import msgspec

from tokenworks.protocols.worker.types import Event

Frame = TypeVar("Frame")

MAX_FRAME = 16 * 1024 * 1024
"""Bytes; a longer frame is garbage."""

SHORTEST_FRAME = 16
"""Bytes: its length, and a map that tells at least what it is."""

_LENGTH = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def encode(event: object) -> bytes:
    payload = _encoder.encode(event)
    return _LENGTH.pack(len(payload)) + payload


class Frames(Generic[Frame]):
    """Give it the chunks as they come. `pending` says that the last frame is incomplete."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[Frame]") -> None:
        self._decoder = decoder
        self._buffer = b""

    @property
    def pending(self) -> bool:
        return bool(self._buffer)

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that this chunk completes. ValueError when the bytes are not a worker's."""
        buffer = self._buffer + chunk if self._buffer else chunk
        events: list[Frame] = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if not 0 < length <= MAX_FRAME:
                raise ValueError(f"a frame claims {length} bytes; allowed are 1 to {MAX_FRAME}")
            begin, end = start + _LENGTH.size, start + _LENGTH.size + length
            if len(buffer) < end:
                break
            events.append(self._decoder.decode(memoryview(buffer)[begin:end]))
            start = end
        self._buffer = bytes(buffer[start:])
        return events


class Reader(Frames[Event]):
    """Of an answer."""

    def __init__(self) -> None:
        super().__init__(_decoder)
