"""Whatever is set and taken back, at each moment exactly one version is in force, and what was in force stays so."""

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.control.pricing.entries import Entry, Subject, Terms
from tokenworks.control.pricing.timeline import gap, insert
from tokenworks.core.errors import InvalidRequest

SUBJECT = Subject("price", "m")


def entry(id: str, starts: int, ends: int | None = None, rate: int = 1) -> Entry:
    return Entry(id, SUBJECT, Terms({"input": rate, "output": rate}), starts, ends, "test", 0)


def apply(versions: list[Entry], new: Entry, now: int, ids: count) -> list[Entry]:
    plan = insert(versions, new, now, lambda: f"resumed_{next(ids)}")
    kept = [replace(each, ends=plan.ended.get(each.id, each.ends)) for each in versions]
    return [*kept, *plan.added]


def in_force(versions: list[Entry], at: int) -> list[int]:
    return [each.terms.rates["input"] for each in versions if each.in_force(at)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.none() | st.integers(1, 9)), max_size=12))
def test_one_version_at_each_moment_and_the_past_stands(steps: list[tuple[int, int, int | None]]) -> None:
    """Steps: (time passes, begins so much later, lasts so long)."""
    now, ids = 10, count()
    versions = [entry("first", 0, rate=100)]
    for number, (passes, delay, lasts) in enumerate(steps):
        now += passes
        starts = now + delay
        new = entry(f"v{number}", starts, None if lasts is None else starts + lasts, rate=number)
        before = {at: in_force(versions, at) for at in range(now)}
        outside = [at for at in range(now, now + 40) if at < starts or (lasts is not None and at >= starts + lasts)]
        others = {at: in_force(versions, at) for at in outside}
        try:
            versions = apply(versions, new, now, ids)
        except InvalidRequest as refused:
            assert "overlaps with" in refused.message
            continue
        assert {at: in_force(versions, at) for at in before} == before
        assert {at: in_force(versions, at) for at in others} == others
        assert in_force(versions, starts) == [number]
        assert all(len(in_force(versions, at)) == 1 for at in range(now + 60))
        assert gap(versions, now) is None


def test_the_past_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="lies in the past"):
        insert([], entry("new", 9), 10, str)
    with pytest.raises(InvalidRequest, match="later than 'from'"):
        insert([], entry("new", 10, 10), 10, str)


def test_an_overlap_with_what_is_to_come_is_refused_and_a_gap_is_found() -> None:
    coming = [entry("now", 0, 20), entry("next", 20)]
    with pytest.raises(InvalidRequest, match="overlaps with next, which begins at 20"):
        insert(coming, entry("new", 15), 10, str)
    assert insert(coming, entry("new", 15, 20), 10, str).ended == {"now": 15}
    assert gap(coming, 10) is None
    assert gap([entry("now", 0, 20), entry("next", 21)], 10) == 20
    assert gap([entry("next", 20)], 10) == 10
    assert gap([], 10) == 10
