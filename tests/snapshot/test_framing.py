import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.snapshot.framing import FrameError, Reader, encode
from tokenworks.snapshot.records import Beat, Delta, Frame, Full, KeyRecord

_key = st.builds(KeyRecord, st.text(), st.text(), st.text(), st.text(), st.none() | st.integers(0, 2**40))
_frame = st.one_of(
    st.builds(Beat, st.integers(0, 2**60)),
    st.builds(Delta, st.integers(0, 2**60), st.lists(_key, max_size=4).map(tuple)),
    st.builds(Full, st.just(1), st.integers(0, 9), st.lists(_key, max_size=9).map(tuple), st.just(()), st.just(())),
)


@given(st.lists(_frame, max_size=8), st.data())
def test_any_chunking_gives_the_same_frames(frames: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(map(encode, frames))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20).map(sorted))
    reader = Reader()
    got = [
        frame
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for frame in reader.feed(stream[begin:end])
    ]
    assert got == frames


@pytest.mark.parametrize("length", [0, 1001, 2**32 - 1])
def test_a_length_out_of_bounds_is_refused_before_its_bytes_come(length: int) -> None:
    with pytest.raises(FrameError, match=f"claims {length} bytes"):
        list(Reader(max_frame=1000).feed(struct.pack("<I", length)))


@pytest.mark.parametrize("payload", [b"\xc1", b"hello", b"\x80", b"\x81\xa4type\xa7unknown"])
def test_garbage_is_refused(payload: bytes) -> None:
    with pytest.raises(FrameError, match="cannot be read"):
        list(Reader().feed(struct.pack("<I", len(payload)) + payload))


def test_frames_before_the_garbage_are_given() -> None:
    reader = Reader()
    got = []
    with pytest.raises(FrameError):
        for frame in reader.feed(encode(Beat(1)) + b"\x00\x00\x00\x00"):
            got.append(frame)
    assert got == [Beat(1)]
