"""However the first one fails, whom a residency policy forbids is not asked: as a fallback, a hedge, to go on with a
stream, as a larger model, or as another model of the caller's list."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace as replace_record
from tests.gateway.failover.conftest import Place, changed

from tokenworks.snapshot.records import PolicyRecord, ResidencyRecord, SinkRecord
from tokenworks.snapshot.residency import OWN

HASTY = PolicyRecord(retries=1, hedge=0.5, breaker=0)


@pytest.fixture
def held(place: Place) -> Iterator[Any]:
    """Sets or lifts the policy that allows `a` and forbids `b`, and waits until it is in force."""
    before = place.state

    def hold(strict: bool) -> None:
        labelled = replace_record(place.state.upstreams["a"], region="eu")
        policy = ResidencyRecord("proj_1", regions=("eu",))
        place.state = changed(
            place.state,
            upstreams={**place.state.upstreams, "a": labelled},
            sinks={name: SinkRecord(name, "eu") for name in OWN},
            residency={policy.id: policy} if strict else {},
        )
        place.gateway.control.publish(place.state)
        place.model("a/ok")  # it is there, so the policy is

    yield hold
    place.state = changed(place.state, upstreams=before.upstreams, sinks={}, residency={})
    place.gateway.control.publish(place.state)
    place.model("a/ok")


@pytest.mark.parametrize("fault", ["error-500", "cut-after-5", "context-length", "silence", "slow-first-token"])
def test_nobody_forbidden_is_asked(place: Place, held: Any, fault: str) -> None:
    model = place.model("a/switch", "b/ok", policy=HASTY)
    other = place.model("b/ok", policy=HASTY)
    place.servers["a"].switch = "ok"
    for _ in range(5):  # so that it is known how late is late
        assert place.ask(model).complete
    place.servers["a"].switch = fault
    asked = place.servers["b"].requests
    for strict, more in ((True, 0), (False, 1)):
        held(strict)
        before = asked["ok"]
        for members in ({}, {"models": [model, other]}):
            told = place.ask(model, **members)
            assert told.complete is not strict, told.raw
            if strict and told.status == 200:
                assert told.error  # what was cut says so
        assert asked["ok"] - before >= more if more else asked["ok"] == before
    place.servers["a"].switch = "ok"
