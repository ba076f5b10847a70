from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tokenworks.snapshot.framing import FrameError, Reader, encode
from tokenworks.snapshot.records import (
    Beat,
    CredentialRecord,
    Delta,
    Full,
    GuardrailRecord,
    KeyRecord,
    LimitRecord,
    ModelRecord,
    OwnKeysRecord,
    ResidencyRecord,
    SinkRecord,
    TargetRecord,
    UpstreamRecord,
)
from tokenworks.snapshot.state import State, diff, is_empty

_name = st.sampled_from("abcdef")
_keys = st.lists(st.builds(KeyRecord, _name, _name, _name, _name), max_size=6)
_models = st.lists(
    st.builds(
        ModelRecord, _name, st.integers(0, 2), st.lists(st.builds(TargetRecord, _name, _name), max_size=2).map(tuple)
    ),
    max_size=6,
)
_upstreams = st.lists(
    st.builds(
        UpstreamRecord,
        _name,
        _name,
        st.just(("p",)),
        _name,
        st.lists(st.builds(CredentialRecord, _name, st.binary(max_size=2)), max_size=2).map(tuple),
    ),
    max_size=6,
)
_own_keys = st.lists(
    st.builds(OwnKeysRecord, _name, st.lists(st.builds(CredentialRecord, _name, st.binary()), max_size=2).map(tuple))
)
_limits = st.lists(
    st.builds(
        LimitRecord,
        st.sampled_from(("key", "project")),
        _name,
        st.none() | _name,
        st.sampled_from(("requests", "tokens")),
        st.integers(0, 2),
        st.sampled_from((0, 60)),
        st.sampled_from(("", "month")),
        st.booleans(),
    ),
    max_size=6,
)
_sinks = st.lists(st.builds(SinkRecord, _name, st.sampled_from(["", "eu"]), retention=st.none() | st.just(0)))
_residency = st.lists(st.builds(ResidencyRecord, _name, st.none() | st.just(("eu",)), no_training=st.booleans()))
_guardrails = st.lists(
    st.builds(GuardrailRecord, _name, st.sampled_from(["redactor", "http"]), st.integers(0, 3), keys=st.tuples(_name))
)
_state = st.builds(
    lambda keys, models, upstreams, limits, own, residency, sinks, guardrails: replace(
        State.of(keys=keys, models=models, upstreams=upstreams, limits=limits, own_keys=own),
        residency={policy.id: policy for policy in residency},
        sinks={sink.name: sink for sink in sinks},
        guardrails={each.name: each for each in guardrails},
    ),
    _keys,
    _models,
    _upstreams,
    _limits,
    _own_keys,
    _residency,
    _sinks,
    _guardrails,
)


@given(st.lists(_state, min_size=1, max_size=8))
def test_any_history_is_the_same_by_deltas(states: list[State]) -> None:
    history = [replace(state, revision=number) for number, state in enumerate(states, 1)]
    reader = Reader()
    followed = State()
    previous = State()
    for state in history:
        for frame in reader.feed(encode(diff(previous, state))):
            followed = followed.apply(frame)
        assert followed == state
        previous = state
    (full,) = reader.feed(encode(history[-1].full()))
    assert State().apply(full) == history[-1]


@given(_state, _state)
def test_a_delta_is_empty_exactly_when_nothing_changed(old: State, new: State) -> None:
    same = replace(old, revision=0) == replace(new, revision=0)
    assert is_empty(diff(old, replace(new, revision=7))) == same


def test_a_state_never_changes() -> None:
    old = State.of(revision=1, keys=[KeyRecord("1", "d1", "p", "o")])
    new = old.apply(Delta(2, keys=(KeyRecord("2", "d2", "p", "o"),), removed_keys=("d1",)))
    assert list(old.keys) == ["d1"]
    assert list(new.keys) == ["d2"]


def test_a_limit_is_replaced_by_what_it_counts_and_removed_by_its_name() -> None:
    old = LimitRecord("project", "p", "m", "requests", 5, 60)
    state = State.of(revision=1, limits=[old]).apply(Delta(2, limits=(structs.replace(old, limit=9, strict=True),)))
    assert [limit.limit for limit in state.limits.values()] == [9]
    assert state.apply(Delta(3, removed_limits=(old.name,))).limits == {}


def test_what_does_not_fit_is_refused() -> None:
    state = State(revision=5)
    with pytest.raises(FrameError, match="out of order"):
        state.apply(Delta(5))
    with pytest.raises(FrameError, match="a change was missed"):
        state.apply(Beat(6))
    with pytest.raises(FrameError, match="version 99"):
        state.apply(Full(99, 6, (), (), ()))
    assert state.apply(Beat(5)) is state
    assert state.apply(Full(1, 2, (), (), ())).revision == 2
