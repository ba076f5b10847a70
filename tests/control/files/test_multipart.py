"""Multipart bodies, cut anywhere, give the same parts; damaged ones give one kind of error."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.control.files.multipart import FormReader, Parser, Part, boundary
from tokenworks.core.errors import InvalidRequest

EDGE = "----edge"


def body(parts: list[tuple[str, str | None, bytes]], preamble: bytes = b"") -> bytes:
    text = preamble
    for name, filename, data in parts:
        shown = f'; filename="{filename}"' if filename is not None else ""
        head = f'--{EDGE}\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n'
        text += head.encode() + (b"Content-Type: text/plain\r\n" if filename else b"") + b"\r\n" + data + b"\r\n"
    return text + f"--{EDGE}--\r\n".encode()


def read(raw: bytes, cuts: list[int]) -> list[tuple[str, str | None, bytes]]:
    async def chunks() -> AsyncIterator[bytes]:
        places = [0, *sorted({cut % (len(raw) + 1) for cut in cuts}), len(raw)]
        for begin, end in itertools.pairwise(places):
            yield raw[begin:end]

    async def run() -> list[tuple[str, str | None, bytes]]:
        form = FormReader(chunks(), EDGE.encode())
        found = []
        while (part := await form.part()) is not None:
            found.append((part.name, part.filename, b"".join([piece async for piece in form.data()])))
        return found

    return asyncio.run(run())


CONTENT = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from([b"\r\n", b"--", b"-", EDGE.encode(), b"\r\n--" + EDGE.encode()[:-1], b"x"])).map(
        b"".join
    ),
)


@given(
    st.lists(st.tuples(st.sampled_from(["file", "purpose"]), st.sampled_from([None, "a.jsonl", "ü b"]), CONTENT)),
    st.lists(st.integers(0, 10_000), max_size=12),
    st.sampled_from([b"", b"preamble\r\n"]),
)
def test_any_cut_gives_the_same_parts(
    parts: list[tuple[str, str | None, bytes]], cuts: list[int], preamble: bytes
) -> None:
    delimiter = b"\r\n--" + EDGE.encode()
    if any(delimiter in b"\r\n" + data + b"\r\n" for _, _, data in parts):
        return  # such content may not be sent with this boundary
    assert read(body(parts, preamble), cuts) == parts


def test_every_single_cut() -> None:
    raw = body([("purpose", None, b"batch"), ("file", "x", b"\r\n--\r\n----edg\r\n")])
    whole = read(raw, [])
    assert [part[2] for part in whole] == [b"batch", b"\r\n--\r\n----edg\r\n"]
    assert all(read(raw, [cut]) == whole for cut in range(len(raw)))


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=4))
def test_garbage_is_refused_or_read_but_never_breaks(raw: bytes, cuts: list[int]) -> None:
    for text in (raw, f"--{EDGE}".encode() + raw, f"--{EDGE}\r\n".encode() + raw):
        try:
            read(text, cuts)
        except InvalidRequest as error:
            assert error.code == "invalid_multipart"


@pytest.mark.parametrize("raw", [b"", b"--", body([("file", "x", b"data")])[:-6], f"--{EDGE}x\r\n".encode()])
def test_a_body_that_ends_too_early(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(raw, [])


def test_a_part_is_never_held_back_whole() -> None:
    parser = Parser(EDGE.encode())
    head = body([("file", "x", b"")])[: -len(f"\r\n--{EDGE}--\r\n")]
    assert [type(event) for event in parser.feed(head)] == [Part]
    seen = sum(len(event) for _ in range(100) for event in parser.feed(b"x" * 1000) if isinstance(event, bytes))
    assert seen > 99_900


def test_a_head_that_never_ends_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="too long"):
        read(f"--{EDGE}\r\n".encode() + b"x" * 20_000, [])


def test_boundaries() -> None:
    assert boundary('multipart/form-data; boundary="a b"') == b"a b"
    assert boundary("Multipart/Form-Data; charset=x; boundary=ab") == b"ab"
    for wrong in (
        "",
        "application/json",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "text/x; boundary=a",
    ):
        with pytest.raises(InvalidRequest):
            boundary(wrong)
