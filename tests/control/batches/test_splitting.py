"""Lines and elements, whatever the pieces in which the document comes."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.control.batches.splitting import LineSplitter, RequestsSplitter
from tokenworks.core.errors import InvalidRequest


def pieces(raw: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = [0, *sorted({cut % (len(raw) + 1) for cut in cuts}), len(raw)]
    for begin, end in itertools.pairwise(places):
        yield raw[begin:end]


CUTS = st.lists(st.integers(0, 10_000), max_size=10)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=6)


@given(st.lists(st.sampled_from([b"", b" ", b"a", b"b" * 9, b"c" * 30, b"\r"])), st.booleans(), st.booleans(), CUTS)
def test_lines(lines: list[bytes], ended: bool, marked: bool, cuts: list[int]) -> None:
    mark = b"\xef\xbb\xbf" if marked else b""
    raw = mark + b"\n".join(lines) + (b"\n" if ended else b"")
    splitter = LineSplitter(longest=20)
    found = [line for piece in pieces(raw, cuts) for line in splitter.feed(piece)] + list(splitter.close())
    expected = [
        (number, None if len(line) > 20 else line) for number, line in enumerate(lines, start=1) if line.strip()
    ]
    assert [(line.number, line.text) for line in found] == expected
    for line in found:
        piece = raw[line.start : line.start + line.length]
        assert piece == line.text if line.text is not None else len(piece) > 20


@given(OBJECTS, st.sampled_from([None, 2]), st.booleans(), CUTS)
def test_requests(objects: list[Any], indent: int | None, plain: bool, cuts: list[int]) -> None:
    raw = json.dumps({"requests": objects}, indent=indent, ensure_ascii=plain).encode("utf-8", "surrogatepass")
    splitter = RequestsSplitter(longest=100_000)
    found = [element for piece in pieces(raw, cuts) for element in splitter.feed(piece)]
    splitter.close()
    assert [json.loads(element.decode("utf-8", "surrogatepass")) for element in found] == objects


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"requests": 1}',
        b'{"requests": [',
        b'{"requests": [{}',
        b'{"requests": [{}]',
        b'{"requests": [1]}',
        b'{"requests": []} {}',
        b'{"requests": [], "more": 1}',
        b'{"x": 1, "requests": []}',
        b" " * 5000,
    ],
)
def test_documents_that_are_none(raw: bytes) -> None:
    splitter = RequestsSplitter(longest=100)
    with pytest.raises(InvalidRequest) as caught:
        list(splitter.feed(raw))
        splitter.close()
    assert caught.value.param == "requests"


def test_an_element_that_never_ends_is_refused() -> None:
    splitter = RequestsSplitter(longest=1000)
    with pytest.raises(InvalidRequest, match="larger than 1000"):
        list(splitter.feed(b'{"requests": [{"a": "' + b"x" * 2000))


def test_a_line_that_is_too_long_is_not_kept() -> None:
    splitter = LineSplitter(longest=1000)
    for _ in range(1000):
        assert not list(splitter.feed(b"x" * 1000))
    assert len(splitter._buffer) <= 2000
    [line] = splitter.feed(b"\n")
    assert (line.text, line.length) == (None, 1_000_000)
