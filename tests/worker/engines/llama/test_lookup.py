"""Guesses from what was there already."""

from tokenworks.worker.engines.llama.lookup import LONGEST, RETRY, Lookup

ROW = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3, 4]


def test_what_followed_before_is_guessed_again() -> None:
    lookup = Lookup(ROW)
    assert lookup.guess(ROW, 1) == [5]
    assert lookup.guess([*ROW, 77], 100) == []


def test_guesses_that_come_true_get_longer() -> None:
    lookup = Lookup(ROW)
    first = len(lookup.guess(ROW, 100))
    for _ in range(20):
        lookup.judge(3, 3)
    assert first < len(lookup.guess(ROW, 100)) == LONGEST


def test_the_latest_place_counts() -> None:
    lookup = Lookup([])
    tokens = [1, 2, 3, 4, 5, 1, 2, 3, 4, 6, 1, 2, 3, 4]
    for end in range(1, len(tokens) + 1):
        lookup.learn(tokens[:end])
    assert lookup.guess(tokens, 1) == [6]


def test_the_last_tokens_are_no_place_of_their_own() -> None:
    assert Lookup([1, 2, 3, 4]).guess([1, 2, 3, 4], 4) == []


def test_wrong_guesses_end_it_for_a_while() -> None:
    lookup = Lookup(ROW)
    lookup.judge(4, 0)
    silent = 0
    while not lookup.guess(ROW, 4):
        silent += 1
    assert silent == RETRY - 1
    lookup.judge(4, 0)
    assert not lookup.guess(ROW, 4)
