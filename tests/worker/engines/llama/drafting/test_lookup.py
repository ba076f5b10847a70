"""Guesses from what was there already."""

from tokenworks.worker.engines.llama.drafting.lookup import Lookup

ROW = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4]


def test_what_followed_before_is_guessed_again() -> None:
    lookup = Lookup(ROW)
    assert lookup.guess(ROW, 1) == [5]
    assert lookup.guess(ROW, 3) == [5, 6, 7]
    assert Lookup(ROW).guess([*ROW, 77], 100) == []


def test_what_ends_with_the_sequence_goes_round() -> None:
    assert Lookup(ROW).guess(ROW, 14) == [5, 6, 7, 8, 9, 10, 1, 2, 3, 4, 5, 6, 7, 8]


def test_the_latest_place_counts() -> None:
    lookup = Lookup([])
    tokens = [1, 2, 3, 4, 5, 1, 2, 3, 4, 6, 1, 2, 3, 4]
    for end in range(1, len(tokens) + 1):
        lookup.learn(tokens[:end])
    assert lookup.guess(tokens, 1) == [6]


def test_a_place_that_is_being_repeated_goes_on() -> None:
    """Two places share a gram; the one before it tells which is meant."""
    first, second = [90, 91, 1, 2, 3, 4, 50, 51], [80, 81, 1, 2, 3, 4, 60, 61]
    tokens = [7, *first, *second, 7, 90, 91, 1, 2]
    lookup = Lookup(tokens)
    assert lookup.guess(tokens, 1) == [3]
    for token in [3, 4]:
        tokens.append(token)
        lookup.learn(tokens)
    assert lookup.guess(tokens, 2) == [50, 51], "the last place of 1, 2, 3, 4 goes on with 60"


def test_the_last_tokens_are_no_place_of_their_own() -> None:
    assert Lookup([1, 2, 3, 4]).guess([1, 2, 3, 4], 4) == []
