"""How long a sound plays that a message holds, by its own header: WAV and MP3, as the protocol has them.

RIFF WAVE (the Multimedia Programming Interface 1.0) tells bytes per second and the length of its data. An MP3 is a row
of frames of a fixed number of samples each (ISO/IEC 11172-3 2.4.1.3 and 13818-3), walked header by header.
"""

import binascii
import struct
from base64 import b64decode
from functools import lru_cache

from tokenworks.core.errors import InvalidRequest

_UNKNOWN_SIZE = (0, 0xFFFFFFFF)
"""Of who wrote a WAV without knowing its end."""
_BITRATES = {  # kilobits per second by MPEG-1 or not and layer
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Samples per second by the version's two bits."""
MOST_LOST = 4096
"""So often a next frame is looked for; what is left then is no sound."""
_ID3 = 10
"""Bytes of the header of a tag before the sound."""


def milliseconds(data: str, kind: str, where: str) -> int:
    """Of base64 `data`, rounded up. InvalidRequest naming `where` for what is no such sound: nobody could bill it."""
    try:
        sound = b64decode(data, validate=True)
        seconds = {"wav": _wav, "mp3": _mp3}[kind](sound)
    except KeyError:
        raise InvalidRequest(f"'{where}.format' must be wav or mp3, not {kind!r}.", param=f"{where}.format") from None
    except binascii.Error:
        raise InvalidRequest(f"'{where}.data' is not base64.", param=f"{where}.data") from None
    except (ValueError, struct.error) as error:
        raise InvalidRequest(f"'{where}.data' is no {kind}: {error}.", param=f"{where}.data") from None
    numerator, denominator = seconds
    return -(-1000 * numerator // denominator)


def _wav(sound: bytes) -> tuple[int, int]:
    """Seconds, as a fraction."""
    if sound[:4] not in (b"RIFF", b"RF64") or sound[8:12] != b"WAVE":
        raise ValueError("it does not begin with RIFF and WAVE")
    at, rate = 12, 0
    while at + 8 <= len(sound):
        name, size = struct.unpack_from("<4sI", sound, at)
        at += 8
        if name == b"fmt ":
            (rate,) = struct.unpack_from("<I", sound, at + 8)
        elif name == b"data":
            if not rate:
                raise ValueError("it tells no bytes per second")
            there = len(sound) - at
            return there if size in _UNKNOWN_SIZE else min(size, there), rate
        at += size + size % 2
    raise ValueError("it holds no data")


def _mp3(sound: bytes) -> tuple[int, int]:
    at = 0
    while sound[at : at + 3] == b"ID3" and at + _ID3 <= len(sound):
        a, b, c, d = sound[at + 6 : at + 10]
        at += _ID3 + (a << 21 | b << 14 | c << 7 | d)
    samples, rate, first, lost = 0, 0, True, 0
    while at + 4 <= len(sound):
        (header,) = struct.unpack_from(">I", sound, at)
        frame = _frame(header)
        if frame is None:  # padding before the first frame, a tag after the last one
            lost += 1
            at = sound.find(b"\xff", at + 1)
            if at < 0 or lost > MOST_LOST:
                break
            continue
        size, count, rate = frame
        if not first or not _is_index(sound[at : at + size]):
            samples += count
        first = False
        at += size
    if not samples:
        raise ValueError("it holds no frame")
    return samples, rate


@lru_cache(maxsize=1024)
def _frame(header: int) -> tuple[int, int, int] | None:
    """(bytes, samples, samples per second) of a frame; None: this is no frame's header."""
    version, layer = header >> 19 & 3, 4 - (header >> 17 & 3)
    bits, rates, padding = header >> 12 & 15, header >> 10 & 3, header >> 9 & 1
    if header >> 21 != 0x7FF or version == 1 or layer == 4 or bits in (0, 15) or rates == 3:
        return None
    new = version == 3
    rate, kilobits = _RATES[version][rates], _BITRATES[new, layer][bits]
    if layer == 1:
        return (12_000 * kilobits // rate + padding) * 4, 384, rate
    samples = 1152 if new or layer == 2 else 576
    return samples // 8 * 1000 * kilobits // rate + padding, samples, rate


def _is_index(frame: bytes) -> bool:
    """Whether a first frame only tells what follows (Xing, LAME, VBRI): it plays nothing."""
    return any(word in frame[:64] for word in (b"Xing", b"Info", b"VBRI"))
