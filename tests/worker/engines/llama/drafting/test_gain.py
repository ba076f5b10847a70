"""Whether a guess is worth it: what a step costs, how likely guesses are, and how many tokens to check."""

import random
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tokenworks.worker.engines.llama.drafting.chances import Chances
from tokenworks.worker.engines.llama.drafting.cost import STALE, Cost, passes
from tokenworks.worker.engines.llama.drafting.lengths import LENGTHS, LONGEST, choose
from tokenworks.worker.engines.llama.drafting.proof import REST, TRIAL, Proof

ALONE = {1: 6.4, 2: 13.3, 4: 15.3, 8: 22.8, 16: 42.0, 32: 80.0}
"""Milliseconds of a pass of so many tokens, as measured with SmolLM2-135M on two cores."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def machine(seconds: dict[int, float] = ALONE) -> Cost:
    cost = Cost(clock=Clock())
    for size, took in seconds.items():
        for _ in range(40):
            cost.add([size], took)
    return cost


def rows(*counts: int) -> list[tuple[str, int, int]]:
    return [("", slot, count) for slot, count in enumerate(counts)]


def test_neighbours_are_one_pass_as_long_as_each_has_a_token_left() -> None:
    assert passes(rows(1, 1, 1, 1)) == [4]
    assert passes(rows(3, 3)) == [6]
    assert passes(rows(1, 4, 1, 1)) == [4, 3]
    assert passes(rows(4, 4, 1, 1)) == [4, 6]
    assert passes(rows(4, 1, 4, 1)) == [4, 3, 3]
    assert passes([("", 0, 1), ("", 2, 1)]) == [1, 1], "a free slot between"
    assert passes([("", 0, 1), ("a", 1, 1)]) == [1, 1], "another adapter"
    assert passes([]) == []


@given(st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_every_token_is_in_one_pass(counts: list[int]) -> None:
    found = passes(rows(*counts))
    assert sum(found) == sum(counts)
    assert found[0] == min(counts) * len(counts)


def test_cost_is_what_was_measured_and_between_it_a_line() -> None:
    cost = machine()
    assert abs(cost.of([8]) - 22.8) < 1e-6
    assert abs(cost.of([6]) - (15.3 + 22.8) / 2) < 1e-6
    assert abs(cost.of([1, 8]) - 29.2) < 1e-6


def test_nothing_is_known_at_first_but_by_another_cost() -> None:
    assert Cost().of([1]) == 0
    assert Cost(machine(), 0.5).of([8]) == 22.8 / 2


def test_what_was_never_tried_looks_cheap_until_it_is() -> None:
    cost = machine({1: 6.4})
    assert 6.4 < cost.of([2]) < 13.3
    for _ in range(20):
        cost.add([2], 13.3)
    assert abs(cost.of([2]) - 13.3) < 0.5
    assert cost.of([8]) < 8 * 6.4


def test_a_pass_that_was_held_up_counts_little_and_is_forgotten() -> None:
    cost = machine()
    cost.add([8], 5000.0)
    assert cost.of([8]) < 22.8 * 1.3
    clock = cost.now
    assert isinstance(clock, Clock)
    clock.now = STALE + 1
    cost.add([1], 6.4)
    assert cost.of([8]) < 22.8, "it is tried again"


def test_the_time_of_several_passes_is_shared_as_expected() -> None:
    cost = machine()
    before = cost.of([16]) / cost.of([2])
    for _ in range(50):
        cost.add([16, 2], 2 * (42.0 + 13.3))
    assert abs(cost.of([16, 2]) - 2 * (42.0 + 13.3)) < 1
    assert abs(cost.of([16]) / cost.of([2]) - before) < 1e-6


def test_chances_are_learned_by_what_came_before() -> None:
    """Guesses of which the first is a coin and the rest is sure."""
    rng, chances, run = random.Random(1), Chances(), 0
    for _ in range(3000):
        came = 1 if run or rng.random() < 0.5 else 0
        run = chances.judge(run, [1], [came])
        if run == 20:
            run = 0
    reach = chances.reach(0, 8)
    assert 0.35 < reach[0] < 0.65
    assert reach[7] > reach[0] * 0.9
    assert chances.reach(16, 1)[0] > 0.95


def test_a_run_ends_with_the_first_wrong_token() -> None:
    chances = Chances()
    assert chances.judge(3, [1, 2, 3], [1, 2]) == 5
    assert chances.judge(3, [1, 2, 3], [1, 9, 3]) == 0
    assert chances.judge(3, [1], [1, 2, 3]) == 4


def lengths(reach: Sequence[Sequence[float]], cost: Cost) -> list[int]:
    return choose(reach, lambda more: cost.of(passes(rows(*[1 + extra for extra in more]))))[0]


def sure(chance: float, length: int = LONGEST) -> list[float]:
    return [chance**power for power in range(1, length + 1)]


def test_one_caller_gains_from_several_likely_tokens() -> None:
    cost = machine()
    assert lengths([sure(0.97)], cost)[0] >= 6
    assert lengths([sure(0.95, 1)], cost) == [0], "a single one costs more than a step"
    assert lengths([sure(0.4)], cost) == [0]
    assert lengths([[]], cost) == [0]


def test_sixteen_callers_gain_only_from_what_is_nearly_sure_for_all() -> None:
    cost = machine({16: 45.0, 32: 81.0, 48: 117.0})
    assert lengths([sure(0.98, 1)] * 16, cost) == [1] * 16
    assert lengths([sure(0.7, 1)] * 16, cost) == [0] * 16
    few = [sure(0.98, 4) if slot in (3, 9) else [] for slot in range(16)]
    assert lengths(few, machine({2: 13.3, 4: 15.3, 16: 45.0})) == [0] * 16, "each is a pass of its own"


def test_where_tokens_cost_nothing_all_is_checked() -> None:
    cost = machine(dict.fromkeys((1, 64, 4096), 20.0))
    assert lengths([sure(0.5), sure(0.9)] * 4, cost) == [LENGTHS[-1]] * 8


def test_what_did_not_gain_rests_for_longer_each_time() -> None:
    proof = Proof()
    for _ in range(50):
        proof.add(1, 1.3)
    rests = []
    for _ in range(3):
        for _ in range(TRIAL):
            assert not proof.rests(16)
            proof.add(16, 0.8)
        rests.append(next(steps for steps in range(9 * REST) if not proof.rests(16)))
    assert rests == [REST, 2 * REST, 4 * REST]
    assert not proof.rests(1), "where fewer run it goes on"
    for _ in range(4 * TRIAL):
        proof.add(16, 1.2)
    for _ in range(99):
        proof.add(16, 0.8)
        if proof.rests(16):
            break
    assert next(steps for steps in range(9 * REST) if not proof.rests(16)) == REST - 1


def test_nothing_is_checked_before_anything_was_measured() -> None:
    assert choose([sure(1.0)], lambda _: 0.0) == ([0], 0.0)
