"""Amazon's event stream, the binary framing of streamed answers.

A message is: u32 total length, u32 length of the headers, u32 CRC-32 of those two, headers, payload, u32 CRC-32 of all
before it; big-endian. https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html has the layout.
"""

import struct
from zlib import crc32

MAX_MESSAGE = 24 * 1024 * 1024
"""Bytes; the format's own limit is 16 MiB of payload and 128 KiB of headers."""

_PRELUDE = struct.Struct(">III")
SHORTEST_MESSAGE = _PRELUDE.size + 4
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a header's value by its type; 6 and 7 are bytes and text, which tell their own length."""

Message = tuple[dict[str, str], bytes]


class Frames:
    """Bytes in any pieces -> whole messages: their text headers and their payload. ValueError for what is none."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> list[Message]:
        self._buffer += chunk
        messages = []
        while (message := self._next()) is not None:
            messages.append(message)
        return messages

    def close(self) -> None:
        """ValueError when a message is cut."""
        if self._buffer:
            raise ValueError(f"it ends {len(self._buffer)} bytes into a message")

    def _next(self) -> Message | None:
        buffer = self._buffer
        if len(buffer) < _PRELUDE.size:
            return None
        total, headers, check = _PRELUDE.unpack_from(buffer)
        if check != crc32(buffer[:8]):
            raise ValueError("the checksum of a message's beginning is wrong")
        if not _PRELUDE.size + headers + 4 <= total <= MAX_MESSAGE:
            raise ValueError(f"a message claims {total} bytes with {headers} of headers")
        if len(buffer) < total:
            return None
        message = bytes(buffer[:total])
        del buffer[:total]
        if int.from_bytes(message[-4:], "big") != crc32(message[:-4]):
            raise ValueError("the checksum of a message is wrong")
        end = _PRELUDE.size + headers
        return _read_headers(message[_PRELUDE.size : end]), message[end:-4]


def _read_headers(data: bytes) -> dict[str, str]:
    headers, at = {}, 0
    try:
        while at < len(data):
            name_end = at + 1 + data[at]
            name = data[at + 1 : name_end].decode()
            kind = data[name_end]
            at = name_end + 1
            if kind in (6, 7):
                length = int.from_bytes(data[at : at + 2], "big")
                if kind == 7:
                    headers[name] = data[at + 2 : at + 2 + length].decode()
                at += 2 + length
            else:
                at += _SIZES[kind]
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError("the headers of a message cannot be read") from error
    return headers


def encode(headers: dict[str, str], payload: bytes) -> bytes:
    """One message; what tests and the fault injector write."""
    head = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + len(value.encode()).to_bytes(2, "big") + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", _PRELUDE.size + len(head) + len(payload) + 4, len(head))
    whole = prelude + crc32(prelude).to_bytes(4, "big") + head + payload
    return whole + crc32(whole).to_bytes(4, "big")
