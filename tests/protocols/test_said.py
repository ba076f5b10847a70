"""Joining answers: however upstreams cut their words, what the caller gets is what one of them would have said."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from tokenworks.core.usage import Usage
from tokenworks.protocols.said import Diverged, Matching, Resuming, Said

WORDS = st.lists(st.text(alphabet='ab {}"', min_size=1, max_size=4), min_size=1, max_size=8)


def pieces(text: str, cuts: list[int]) -> list[str]:
    borders = [0, *sorted({cut % (len(text) + 1) for cut in cuts}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(borders) if a != b]


def full(thought: str, text: str, arguments: str, cuts: list[int]) -> list[Event]:
    events: list[Event] = [Started("x", "m")]
    events += [ReasoningDelta(piece) for piece in pieces(thought, cuts)]
    events += [TextDelta(piece) for piece in pieces(text, cuts)]
    calls = [ToolCallDelta(0, piece) for piece in pieces(arguments, cuts)]
    if calls:
        calls[0].id, calls[0].name = "call_2", "f"
    return [*events, *calls, Finished(FinishReason.STOP), UsageReport(Usage(1, output=2))]


def told(events: list[Event]) -> tuple[str, str, str]:
    return (
        "".join(e.text for e in events if isinstance(e, ReasoningDelta)),
        "".join(e.text for e in events if isinstance(e, TextDelta)),
        "".join(e.arguments for e in events if isinstance(e, ToolCallDelta)),
    )


CUTS = st.lists(st.integers(0, 40), max_size=6)


@given(
    st.text("ab ", max_size=12),
    st.text("ab ", max_size=20),
    st.text('{}"', max_size=12),
    CUTS,
    CUTS,
    st.integers(0, 30),
)
def test_whatever_is_said_again_is_passed_on_once(
    thought: str, text: str, arguments: str, first: list[int], second: list[int], lost: int
) -> None:
    said = Said()
    before = [event for event in full(thought, text, arguments, first) if not isinstance(event, Finished | UsageReport)]
    before = before[:lost]
    said.add(before)
    after = Matching(said)(full(thought, text, arguments, second))
    a, b = told(before), told(after)
    assert tuple(x + y for x, y in zip(a, b, strict=True))[1:] == (text, arguments)
    if not any(a[1:]):
        assert a[0] + b[0] == thought
    assert sum(isinstance(event, Finished) for event in after) == 1
    assert not any(isinstance(event, Started) for event in after)
    if a[2] and b[2]:
        assert not any(isinstance(event, ToolCallDelta) and event.id for event in after)


@given(st.text("ab", min_size=1, max_size=10), st.text("ab", max_size=10), CUTS)
def test_another_answer_is_never_joined(said_text: str, other: str, cuts: list[int]) -> None:
    said = Said()
    said.add([TextDelta(said_text)])
    events = full("", other, "", cuts)
    if other.startswith(said_text):
        assert told(Matching(said)(events))[1] == other[len(said_text) :]
    else:
        with pytest.raises(Diverged):
            Matching(said)(events)


def test_another_call_is_never_joined() -> None:
    said = Said()
    said.add([ToolCallDelta(0, '{"a', "call_1", "f")])
    for other in (ToolCallDelta(0, '{"a": 1}', "call_9", "g"), ToolCallDelta(0, '{"b": 1}', "call_9", "f")):
        with pytest.raises(Diverged):
            Matching(said)([other])
    with pytest.raises(Diverged):
        Matching(said)([TextDelta("No call at all.")])


@given(st.text(" \n", max_size=4), st.text(" \nab", max_size=8), CUTS)
def test_white_space_that_was_not_told_is_not_doubled(space: str, rest: str, cuts: list[int]) -> None:
    """The upstream may say the space again or not: the caller has it once."""
    passed = Resuming(space, lambda usage: usage)([TextDelta(piece) for piece in pieces(space + rest, cuts)])
    assert told(passed)[1] == rest
    if not rest.startswith((" ", "\n")):
        assert told(Resuming(space, lambda usage: usage)([TextDelta(rest)]))[1] == rest


def test_choices_that_ended_stay_as_they_were() -> None:
    said = Said()
    said.add([TextDelta("one", 0), Finished(FinishReason.STOP, 0), TextDelta("tw", 1)])
    events: list[Event] = [TextDelta("one", 0), TextDelta("two", 1), Finished(FinishReason.STOP, 1)]
    events.append(Finished(FinishReason.STOP, 0))
    assert Matching(said)(events) == [TextDelta("o", 1), Finished(FinishReason.STOP, 1)]
    with pytest.raises(Diverged):
        Matching(said)([TextDelta("one more", 0)])


def test_only_plain_text_of_one_choice_can_be_resumed() -> None:
    said = Said()
    said.add([TextDelta("Hello "), TextDelta("you")])
    assert said.only_text() == "Hello you"
    for event in (TextDelta("x", 1), ReasoningDelta("x"), ToolCallDelta(0, "", "c", "f"), Finished(FinishReason.STOP)):
        other = Said()
        other.add([TextDelta("Hello "), event])
        assert other.only_text() is None
