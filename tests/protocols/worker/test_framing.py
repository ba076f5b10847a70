"""Frames cut into pieces as where a limit may end the answer: no piece completes two of them."""

from typing import get_args

import msgspec
import pytest

from tokenworks.protocols.worker import framing, types

SMALLEST = [
    kind(*[0 if field.type is int else "" for field in msgspec.structs.fields(kind) if field.required])
    for kind in get_args(types.Event)
]


@pytest.mark.parametrize("event", SMALLEST, ids=lambda event: type(event).__name__)
def test_no_frame_is_shorter_than_its_protocol_says(event: types.Event) -> None:
    assert len(framing.encode(event)) >= framing.SHORTEST_FRAME


def test_pieces_bring_one_token_at_a_time_and_all_of_them() -> None:
    events = [types.Tokens((number,), "w" * (number % 9)) for number in range(50)]
    data = b"".join(map(framing.encode, events))
    reader, seen = framing.Reader(), []
    for at in range(0, len(data), framing.SHORTEST_FRAME):
        brought = reader.feed(data[at : at + framing.SHORTEST_FRAME])
        assert len(brought) <= 1
        seen += brought
    assert seen == events
