"""Bytes of an answer: u32 little-endian length, then one `Event` in MessagePack. Pure, no I/O."""

import struct

import msgspec

from tokenworks.protocols.worker.types import Event

MAX_FRAME = 16 * 1024 * 1024
"""Bytes; a longer frame is garbage."""

SHORTEST_FRAME = 16
"""Bytes: its length, and a map that tells at least what it is."""

_LENGTH = struct.Struct("<I")
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def encode(event: Event) -> bytes:
    payload = _encoder.encode(event)
    return _LENGTH.pack(len(payload)) + payload


class Reader:
    """Give it the chunks as they come. `pending` says that the last frame is incomplete."""

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def pending(self) -> bool:
        return bool(self._buffer)

    def feed(self, chunk: bytes) -> list[Event]:
        """The frames that this chunk completes. ValueError when the bytes are not a worker's."""
        buffer = self._buffer + chunk if self._buffer else chunk
        events: list[Event] = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if not 0 < length <= MAX_FRAME:
                raise ValueError(f"a frame claims {length} bytes; allowed are 1 to {MAX_FRAME}")
            begin, end = start + _LENGTH.size, start + _LENGTH.size + length
            if len(buffer) < end:
                break
            events.append(_decoder.decode(memoryview(buffer)[begin:end]))
            start = end
        self._buffer = bytes(buffer[start:])
        return events
