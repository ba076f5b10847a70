"""What heads of files say: of real pictures of every kind, of broken ones, and of anything at all."""

import io
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from tokenworks.gateway.upstreams.pictures import Picture, look


def picture(kind: str, width: int, height: int, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("GIF", {}), ("BMP", {})]
)
def test_size_and_kind(kind: str, options: dict[str, object]) -> None:
    for width, height in ((1, 1), (300, 20), (20, 300)):
        assert look(picture(kind, width, height, **options)) == Picture(f"image/{kind.lower()}", width, height)


def test_a_photograph_with_a_long_head() -> None:
    """Cameras put pages of words before the frame."""
    exif = Image.Exif()
    exif[0x010E] = "words " * 1000
    assert look(picture("JPEG", 30, 20, exif=exif)) == Picture("image/jpeg", 30, 20)


@pytest.mark.parametrize("kind", ["WEBP", "TIFF", "ICO", "PPM"])
def test_other_kinds_are_none(kind: str) -> None:
    assert look(picture(kind, 16, 16)) is None


@pytest.mark.parametrize("data", [b"", b"BM", b"GIF89a", b"\xff\xd8\xff", b"RIFF....WAVEfmt ", b"<svg/>", b"%PDF-1.7"])
def test_no_picture(data: bytes) -> None:
    assert look(data) is None


def test_half_a_picture() -> None:
    whole = picture("PNG", 30, 20)
    assert look(whole[: len(whole) // 2]) is None
    assert look(picture("JPEG", 30, 20)[:100]) is None


def test_a_bitmap_from_its_bottom_up() -> None:
    data = bytearray(picture("BMP", 30, 20))
    struct.pack_into("<i", data, 22, -20)
    assert look(bytes(data)) == Picture("image/bmp", 30, 20)


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM"]), st.binary(max_size=200))
@example(b"\xff\xd8", b"\xff" * 50)
@example(b"\xff\xd8", b"\xff\xe0\x00\x00" * 20)
def test_anything_is_a_picture_or_none(head: bytes, rest: bytes) -> None:
    found = look(head + rest)
    assert found is None or (found.width > 0 and found.height > 0)
