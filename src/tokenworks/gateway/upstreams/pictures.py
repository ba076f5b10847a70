"""What a file says in its head of the picture in it. Nothing is decoded.

PNG: https://www.w3.org/TR/png-3 (5.2, 11.2.1); JPEG: https://www.w3.org/Graphics/JPEG/itu-t81.pdf (B.2);
GIF: https://www.w3.org/Graphics/GIF/spec-gif89a.txt (17, 18); BMP: a BITMAPINFOHEADER at byte 14.
"""

import struct
from dataclasses import dataclass

_PNG, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a frame, whose head tells its size."""
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers that nothing follows."""


@dataclass(frozen=True, slots=True)
class Picture:
    media_type: str
    width: int
    height: int


def look(data: bytes) -> Picture | None:
    """None for what is no PNG, JPEG, GIF or BMP, or ends before its head does."""
    found: tuple[str, tuple[int, int] | None] | None = None
    if data.startswith(_PNG) and data[12:16] == b"IHDR" and _PNG_END in data[-64:]:
        found = "image/png", struct.unpack_from(">II", data, 16)
    elif data.startswith(b"\xff\xd8\xff"):
        found = "image/jpeg", _jpeg(data)
    elif data.startswith((b"GIF87a", b"GIF89a")) and len(data) > 13:
        found = "image/gif", struct.unpack_from("<HH", data, 6)
    elif data.startswith(b"BM") and len(data) > 26 and struct.unpack_from("<I", data, 14)[0] >= 40:
        width, height = struct.unpack_from("<ii", data, 18)
        found = "image/bmp", (abs(width), abs(height))
    if found is None or found[1] is None or not all(found[1]):
        return None
    return Picture(found[0], *found[1])


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker == 0xFF:  # filling
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None
