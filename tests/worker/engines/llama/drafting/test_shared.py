"""What requests of one key share: never across keys, never more than the bound."""

import gc
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.worker.engines.llama.drafting.lookup import GRAM
from tokenworks.worker.engines.llama.drafting.shared import ENTRY, KEY, LEAST, Tables
from tokenworks.worker.engines.llama.scheduling.sequence import Key

KEYS: list[Key] = [("acme", ""), ("acme", "poet"), ("globex", ""), ("", "")]
ROW = list(range(10, 30))


def test_what_one_request_said_is_guessed_for_the_next_one() -> None:
    tables = Tables(1 << 20)
    tables.learn(KEYS[0], ROW, 0)
    assert tables.of(KEYS[0]).guess([99, *ROW[:GRAM]], 5) == ROW[GRAM : GRAM + 5]
    assert tables.of(KEYS[0]).guess(ROW, 5) == []
    assert tables.of(KEYS[0]).guess(ROW[:2], 5) == []


def test_it_goes_on_where_it_stopped() -> None:
    whole, parts = Tables(1 << 20), Tables(1 << 20)
    whole.learn(KEYS[0], ROW, 0)
    for end in range(1, len(ROW) + 1):
        parts.learn(KEYS[0], ROW[:end], end - 1)
    for at in range(GRAM, len(ROW)):
        assert whole.of(KEYS[0]).guess(ROW[:at], 9) == parts.of(KEYS[0]).guess(ROW[:at], 9) == ROW[at : at + 9]


Said = st.lists(st.tuples(st.sampled_from(KEYS), st.lists(st.integers(0, 4), max_size=40)), max_size=30)


@settings(max_examples=30, deadline=None)
@given(said=Said, memory=st.integers(0, 200).map(lambda grams: grams * ENTRY))
def test_nothing_is_guessed_but_what_was_said_under_the_same_key(
    said: list[tuple[Key, list[int]]], memory: int
) -> None:
    tables = Tables(memory)
    followed: dict[Key, dict[tuple[int, ...], set[int]]] = {key: {} for key in KEYS}
    for key, tokens in said:
        tables.learn(key, tokens, 0)
        for at in range(GRAM, len(tokens)):
            followed[key].setdefault(tuple(tokens[at - GRAM : at]), set()).add(tokens[at])
        assert tables.used <= LEAST
        for other in KEYS:
            row = list(tokens)
            for token in tables.of(other).guess(tokens, 8):
                assert token in followed[other][tuple(row[-GRAM:])]
                row.append(token)


def test_the_key_used_longest_ago_makes_room_and_one_has_half() -> None:
    tables = Tables(LEAST)
    most = LEAST // ENTRY
    quiet, loud = KEYS[0], KEYS[2]
    tables.learn(quiet, ROW, 0)
    tables.learn(loud, list(range(10_000, 10_000 + 2 * most)), 0)
    assert most // 4 <= tables.of(loud).size <= most // 2
    assert tables.of(quiet).guess(ROW[:GRAM], 1) == [ROW[GRAM]], "one key alone does not drive another one out"
    for number in range(8):
        tables.learn((f"t{number}", ""), list(range(20_000 * number, 20_000 * number + most)), 0)
        assert tables.used <= LEAST
    assert tables.of(quiet).size == 0


def test_keys_without_end_take_no_more() -> None:
    tables = Tables(0)
    for number in range(3 * LEAST // KEY):
        tables.of((f"t{number}", "")).chances["own"] = None  # type: ignore[assignment]
        tables.learn((f"t{number}", ""), ROW, 0)
    assert tables.used <= LEAST
    assert tables.of(("t1", "")).chances == {}


def test_the_bound_is_one_of_real_memory() -> None:
    memory = 4 << 20
    gc.collect()
    tracemalloc.start()
    try:
        tables = Tables(memory)
        for number in range(6):
            begin = number << 18
            tables.learn((f"t{number % 3}", ""), [begin + n for n in range(20_000)], 0)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert memory / 4 < taken <= memory
