"""Stop strings are found wherever the borders of tokens are, and nothing else is ever lost."""

from hypothesis import given
from hypothesis import strategies as st

from tokenworks.worker.stops import StopFinder


def run(pieces: list[str], stops: list[str]) -> tuple[str, str | None]:
    finder, released = StopFinder(stops), ""
    for piece in pieces:
        text, stop = finder.feed(piece)
        released += text
        if stop is not None:
            return released, stop
    return released + finder.flush(), None


def test_a_stop_string_across_three_tokens() -> None:
    assert run(["one E", "N", "D two"], ["END"]) == ("one ", "END")


def test_the_first_in_the_text_wins() -> None:
    assert run(["a b c"], ["c", "b"]) == ("a ", "b")


def test_what_looked_like_one_is_released() -> None:
    assert run(["one EN", "T"], ["END"]) == ("one ENT", None)


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3), st.data())
def test_it_cuts_where_a_search_in_the_whole_text_would(text: str, stops: list[str], data: st.DataObject) -> None:
    borders = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *borders], [*borders, len(text)], strict=True)]
    released, stop = run(pieces, stops)
    earliest_end = min((text.find(s) + len(s) for s in stops if s in text), default=None)
    if earliest_end is None:
        assert (released, stop) == (text, None)
    else:
        assert stop in stops
        assert text.startswith(released + stop)
        assert not any(s in released for s in stops)
