import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.journal.framing import MAX_RECORD, FrameError, append, decode, frames, read_batch
from tokenworks.journal.records import Opened, Progress, Record, Settled, UsageRecord

_count = st.integers(0, 2**62)
_usage = st.builds(UsageRecord, _count, _count, _count, _count, _count)
_text = st.text(max_size=20)
_record = st.one_of(
    st.builds(Opened, *[_text, _count, _count, *[_text] * 8, st.booleans()]),
    st.builds(Progress, _text, _count, _usage, st.integers(-(2**62), 2**62)),
    st.builds(
        Settled, _text, _count, _count, _text, _usage, _count, _count, _text, _text, _count, _count, st.booleans()
    ),
)
SOME: list[Record] = [
    Progress("r1", 1, UsageRecord(output=3)),
    Settled("r1", 1, 5, "completed"),
    Progress("r2", 2, UsageRecord()),
]


def encoded(records: list[Record]) -> bytes:
    buffer = bytearray()
    for record in records:
        append(buffer, record)
    return bytes(buffer)


def sound(data: bytes) -> list[Record]:
    return [decode(data[begin:end]) for begin, end in frames(data)]


@given(st.lists(_record, max_size=10))
def test_round_trip(records: list[Record]) -> None:
    assert read_batch(encoded(records)) == records


def test_cut_at_every_byte_gives_a_prefix() -> None:
    whole = encoded(SOME)
    borders = {len(encoded(SOME[:count])) for count in range(4)}
    for cut in range(len(whole) + 1):
        got = sound(whole[:cut])
        assert got == SOME[: len(got)]
        assert len(encoded(got)) == max(border for border in borders if border <= cut)
        if cut not in borders:
            with pytest.raises(FrameError, match="damaged after"):
                read_batch(whole[:cut])


def test_every_flipped_bit_is_detected() -> None:
    whole = encoded(SOME)
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        got = sound(bytes(damaged))
        assert got == SOME[: len(got)]
        assert len(got) < len(SOME)
        with pytest.raises(FrameError):
            read_batch(bytes(damaged))


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_garbage_is_no_record(garbage: bytes) -> None:
    whole = encoded(SOME)
    assert sound(whole + b"\xff" + garbage) == SOME


def test_zeros_are_no_records() -> None:
    assert sound(encoded(SOME) + bytes(4096)) == SOME


def test_a_record_over_the_limit_leaves_the_buffer_alone() -> None:
    buffer = bytearray(b"before")
    with pytest.raises(ValueError, match="over the limit"):
        append(buffer, Settled("r", 1, 0, "failed", error="x" * MAX_RECORD))
    assert buffer == b"before"


def test_an_unknown_record_is_named() -> None:
    with pytest.raises(FrameError, match=r"cannot be read.*unheard"):
        decode(b"\x81\xa4type\xa7unheard")
