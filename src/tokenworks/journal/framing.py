"""Bytes of a record, in a segment and on the wire alike: u32 LE length, u32 LE CRC-32, MessagePack. Pure, no I/O."""

import struct
import zlib
from collections.abc import Iterator

import msgspec

from tokenworks.journal.records import Record

MAX_RECORD = 64 * 1024
"""Bytes of one payload; more is damage. A record takes 100 to 300."""

_HEAD = struct.Struct("<II")
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


class FrameError(ValueError):
    """A frame is torn or damaged, or holds no record that this version understands."""


def append(buffer: bytearray, record: Record) -> None:
    """ValueError, and an unchanged buffer, when the record is over MAX_RECORD."""
    payload = _encoder.encode(record)
    if len(payload) > MAX_RECORD:
        raise ValueError(f"a journal record of {len(payload)} bytes is over the limit of {MAX_RECORD}")
    buffer += _HEAD.pack(len(payload), zlib.crc32(payload))
    buffer += payload


def frames(data: bytes | memoryview, start: int = 0) -> Iterator[tuple[int, int]]:
    """(begin, end) of each payload, up to the first frame that is not whole and sound."""
    view = memoryview(data)
    size = len(view)
    while start + _HEAD.size <= size:
        length, checksum = _HEAD.unpack_from(view, start)
        begin = start + _HEAD.size
        end = begin + length
        # An empty payload has checksum 0: without this line a file's zeroed tail would read as records.
        if not 0 < length <= MAX_RECORD or end > size or zlib.crc32(view[begin:end]) != checksum:
            return
        yield begin, end
        start = end


def decode(payload: bytes | memoryview) -> Record:
    try:
        return _decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise FrameError(f"a journal record cannot be read: {error}") from error


def read_batch(body: bytes) -> list[Record]:
    """All records of a shipped batch. FrameError when any byte of it is torn or damaged."""
    records = []
    end = 0
    for begin, end in frames(body):
        records.append(decode(memoryview(body)[begin:end]))
    if end != len(body):
        raise FrameError(f"the batch is damaged after {end} of {len(body)} bytes ({len(records)} records)")
    return records
