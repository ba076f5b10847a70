"""Who answers, in which order, and who never does: on made-up fleets of providers, without a socket."""

import json
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.caller import Caller
from tokenworks.core.errors import InvalidRequest, PermissionDenied, TokenworksError, Unavailable
from tokenworks.core.request import Request
from tokenworks.core.routing import Preferences
from tokenworks.core.usage import Usage
from tokenworks.gateway.failover.health import Health
from tokenworks.gateway.routing.observed import Observed
from tokenworks.gateway.routing.plan import Facts, judge, plan
from tokenworks.gateway.routing.planner import Planner
from tokenworks.journal.records import Settled, UsageRecord
from tokenworks.protocols import codec
from tokenworks.snapshot.records import (
    FREE,
    ModelRecord,
    PolicyRecord,
    PriceRecord,
    ResidencyRecord,
    SinkRecord,
    TargetRecord,
    UpstreamRecord,
)
from tokenworks.snapshot.residency import OWN
from tokenworks.snapshot.state import State

CALLER = Caller("key", "project", "organization")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def asked(text: str = "Hi", routing: Preferences | None = None, **members: Any) -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **members}
    request = codec("openai_chat").decode_request(json.dumps(body).encode())
    request.routing = routing
    return request


def priced(dollars: float, cached: float | None = None) -> tuple[PriceRecord, ...]:
    rates = {"input": round(dollars * 1e9), "output": round(2 * dollars * 1e9)}
    return (PriceRecord(rates | ({} if cached is None else {"cached_input": round(cached * 1e9)})),)


def fleet(*upstreams: UpstreamRecord, sort: str = "order", **costs: Any) -> State:
    targets = tuple(TargetRecord(each.id, "x", costs.get(each.id, ())) for each in upstreams)
    model = ModelRecord("m", 1, targets, prices=(FREE,), policy=PolicyRecord(sort=sort))
    return State.of(revision=1, keys=[], models=[model], upstreams=upstreams)


def upstream(name: str, **labels: Any) -> UpstreamRecord:
    return UpstreamRecord(name, name, ("openai_chat",), "http://x", **labels)


def order(
    state: State, request: Request | None = None, facts: Facts | None = None, caller: Caller = CALLER
) -> list[str]:
    return [target.upstream for target in plan(request or asked(), caller, state, facts or Facts())]


A, B, C = upstream("a"), upstream("b"), upstream("c")


def test_the_operators_order_stands_unless_somebody_asks_otherwise() -> None:
    state = fleet(A, B, C, a=priced(3), b=priced(1), c=priced(2))
    assert order(state) == ["a", "b", "c"]
    assert order(state, asked(routing=Preferences(sort="price"))) == ["b", "c", "a"]
    assert order(fleet(A, B, C, sort="price", a=priced(3), b=priced(1), c=priced(2))) == ["b", "c", "a"]
    assert order(state, asked(routing=Preferences(order=("c",)))) == ["c", "a", "b"]
    assert order(state, asked(routing=Preferences(order=("c",), allow_fallbacks=False))) == ["c"]
    assert order(state, asked(routing=Preferences(allow_fallbacks=False))) == ["a"]


def test_an_unknown_cost_is_never_the_cheapest() -> None:
    assert order(fleet(A, B, sort="price", b=priced(5)))[0] == "b"


def test_the_effective_price_counts_what_is_read_from_a_cache() -> None:
    observed = Observed()
    for _ in range(5):
        observed.answered("a", "x", Usage(input=100, cached_input=9900, output=10), 0.1, 1.0)
        observed.answered("b", "x", Usage(input=10_000, output=10), 0.1, 1.0)
    state = fleet(A, B, sort="price", a=priced(2, 0.1), b=priced(1))
    assert order(state, asked("x" * 40_000), Facts(observed=observed)) == ["a", "b"]
    assert order(state, asked("x" * 40_000)) == ["b", "a"]


def test_latency_throughput_and_failures_are_weighed() -> None:
    observed, health = Observed(), Health()
    for _ in range(5):
        observed.answered("a", "x", Usage(output=100), 2.0, 3.0)  # slow to begin, 99 tokens/s
        observed.answered("b", "x", Usage(output=100), 0.2, 10.2)  # quick to begin, 10 tokens/s
    facts = Facts(observed=observed, health=health)
    assert order(fleet(A, B), asked(routing=Preferences(sort="latency")), facts) == ["b", "a"]
    assert order(fleet(A, B), asked(routing=Preferences(sort="throughput")), facts) == ["a", "b"]
    assert order(fleet(A, B), asked(routing=Preferences(min_throughput={0.5: 50.0})), facts) == ["a", "b"]
    health.pause("a", 5.0)
    assert order(fleet(A, B), asked(routing=Preferences(sort="throughput")), facts) == ["b", "a"]


def test_what_was_seen_fades() -> None:
    clock = Clock()
    observed = Observed(clock)
    observed.answered("a", "x", Usage(output=100), 10.0, 11.0)
    clock.now += 3000.0
    observed.answered("a", "x", Usage(output=100), 1.0, 2.0)
    seen = observed.of("a", "x")
    assert seen is not None
    assert seen.first_token == pytest.approx(1.0, abs=0.02)


def test_replicas_of_ours_take_turns_by_how_busy_they_are() -> None:
    one, two = upstream("one", local=True), upstream("two", local=True)
    assert order(fleet(one, two), facts=Facts(in_flight={"one": 2, "two": 1})) == ["two", "one"]


LABELS = st.builds(
    upstream,
    st.just("u"),
    region=st.sampled_from(["", "eu", "us"]),
    jurisdiction=st.sampled_from(["", "EU", "US"]),
    retention=st.sampled_from([None, 0, 3600]),
    trains=st.sampled_from([None, False, True]),
    quantization=st.sampled_from(["", "bf16", "fp8", "bf16,fp8"]),
    state=st.sampled_from(["ready", "failed"]),
    local=st.booleans(),
)
WISHES = st.builds(
    Preferences,
    order=st.lists(st.sampled_from(["u0", "u1", "u2", "u9"]), max_size=2).map(tuple),
    only=st.lists(st.sampled_from(["u0", "u1", "u2", "u9"]), max_size=2).map(tuple),
    ignore=st.lists(st.sampled_from(["u0", "u1", "u9"]), max_size=2).map(tuple),
    allow_fallbacks=st.booleans(),
    sort=st.sampled_from(["", "price", "latency", "throughput", "balanced"]),
    zdr=st.booleans(),
    deny_data_collection=st.booleans(),
    quantizations=st.lists(st.sampled_from(["bf16", "fp8"]), max_size=1).map(tuple),
    regions=st.lists(st.sampled_from(["eu", "us"]), max_size=1).map(tuple),
)
POLICIES = st.lists(
    st.builds(
        ResidencyRecord,
        st.sampled_from(["organization", "project", "another"]),
        regions=st.none() | st.lists(st.sampled_from(["eu", "us"]), min_size=1).map(tuple),
        jurisdictions=st.none() | st.lists(st.sampled_from(["EU", "US"]), min_size=1).map(tuple),
        retention=st.none() | st.sampled_from([0, 60, 3600]),
        no_training=st.booleans(),
    ),
    max_size=3,
    unique_by=lambda policy: policy.id,
)

SINKS = st.lists(
    st.builds(
        SinkRecord,
        st.sampled_from(["objects", "cache", "limits", "webhooks", "payments", "a-collector"]),
        st.sampled_from(["", "eu", "us"]),
        st.sampled_from(["EU", "US"]),
    ),
    max_size=2,
    unique_by=lambda sink: sink.name,
).flatmap(
    lambda others: st.sampled_from(
        [others, [*others, *(SinkRecord(name, "eu", "EU") for name in ("database", "journal", "logs"))]]
    )
)


@given(
    st.lists(LABELS, min_size=1, max_size=6),
    st.none() | WISHES,
    st.none() | st.sets(st.sampled_from(["eu", "us"]), min_size=1).map(frozenset),
    st.lists(st.integers(0, 5), max_size=12),
    POLICIES,
    SINKS,
)
def test_nobody_forbidden_is_ever_planned(
    labels: list[UpstreamRecord],
    wanted: Preferences | None,
    regions: frozenset[str] | None,
    answers: list[int],
    policies: list[ResidencyRecord],
    sinks: list[SinkRecord],
) -> None:
    upstreams = [msgspec.structs.replace(each, id=f"u{n}", provider=f"u{n}") for n, each in enumerate(labels)]
    free = fleet(*upstreams, sort="balanced")
    state = replace(free, residency={policy.id: policy for policy in policies}, sinks={s.name: s for s in sinks})
    caller = replace(CALLER, regions=regions)
    planner = Planner(Facts(), draw=iter([0.0, 0.5] * 50).__next__)
    for number in answers:  # warm caches and incumbents must not bring anybody back
        if number < len(upstreams):
            target = judge(asked(), CALLER, free, Facts())[0].target
            settled = Settled("r", 1, 1, "completed", UsageRecord(cached_input=10), first_token_ns=1, duration_ns=2)
            planner.answered(asked(), caller, replace(target, upstream=f"u{number}"), settled, True)
    for _ in range(3):
        try:
            targets = planner.plan(asked(routing=wanted), caller, state)
        except (InvalidRequest, PermissionDenied, Unavailable):
            targets = []
        for policy in policies if targets else []:  # who is told of it is where it may be told
            for name in {"database", "journal", "logs"} | {sink.name for sink in sinks} - {
                "objects",
                "cache",
                "webhooks",
            }:
                sink = state.sinks.get(name, SinkRecord(name))
                if policy.id != "another":
                    assert policy.regions is None or sink.region in policy.regions
                    assert policy.jurisdictions is None or sink.jurisdiction in policy.jurisdictions
        for target in targets:
            who = state.upstreams[target.upstream]
            assert who.state == "ready"
            assert regions is None or who.region in regions
            for policy in policies:
                if policy.id != "another":
                    assert policy.regions is None or who.region in policy.regions
                    assert policy.jurisdictions is None or who.jurisdiction in policy.jurisdictions
                    assert policy.retention is None or (who.retention is not None and who.retention <= policy.retention)
                    assert not policy.no_training or who.trains is False
            if wanted is not None:
                assert not wanted.only or who.provider in wanted.only
                assert who.provider not in wanted.ignore
                assert not wanted.zdr or who.retention == 0
                assert not wanted.deny_data_collection or who.trains is False
                assert not wanted.regions or who.region in wanted.regions
                assert not wanted.quantizations or set(who.quantization.split(",")) <= set(wanted.quantizations)
                if not wanted.allow_fallbacks:
                    assert who.provider in wanted.order if wanted.order else len(targets) == 1
        assert len(targets) == len({target.upstream for target in targets})


def test_why_nobody_may_answer_is_told() -> None:
    state = fleet(upstream("a", region="us"), upstream("b"))
    with pytest.raises(InvalidRequest) as refused:
        order(state, asked(routing=Preferences(zdr=True)))
    assert (refused.value.param, refused.value.code) == ("provider", "no_eligible_provider")
    assert "nobody states how long it keeps data" in refused.value.message
    with pytest.raises(PermissionDenied) as denied:
        order(state, caller=replace(CALLER, regions=frozenset({"eu"})))
    assert denied.value.code == "region_denied"
    assert "a is in us" in denied.value.message
    assert "b is in an unknown region" in denied.value.message


def test_a_policy_that_nobody_keeps_is_told_and_one_that_is_not_ready_is_waited_for() -> None:
    policy = ResidencyRecord("project", regions=("eu",), retention=0)
    own = {name: SinkRecord(name, "eu") for name in OWN}
    state = replace(
        fleet(upstream("a", region="us"), upstream("b", region="eu")), residency={"project": policy}, sinks=own
    )
    with pytest.raises(PermissionDenied) as denied:
        order(state)
    assert denied.value.code == "residency_denied"
    assert "a is in us, and the residency policy of project allows eu" in denied.value.message
    assert "b keeps data for a time that nobody states" in denied.value.message
    assert order(state, caller=replace(CALLER, project_id="other")) == ["a", "b"]
    starting = upstream("c", region="eu", retention=0, state="starting")
    with pytest.raises(Unavailable):
        order(replace(fleet(A, starting), residency={"project": policy}, sinks=own))


def test_required_parameters_exclude_those_who_would_drop_them() -> None:
    other = UpstreamRecord("b", "b", ("anthropic_messages",), "http://x")
    state = fleet(other, A)
    request = asked(routing=Preferences(require_parameters=True), seed=7)
    assert order(state, request) == ["a"]
    judged = {each.upstream.id: each.reason for each in judge(request, CALLER, state, Facts())}
    assert judged == {"a": "", "b": "would not honour seed"}


def test_a_price_above_the_callers_is_refused() -> None:
    model = ModelRecord("m", 1, (TargetRecord("a", "x"),), prices=priced(2))
    state = State.of(revision=1, keys=[], models=[model], upstreams=[A])
    assert order(state, asked(routing=Preferences(max_price={"input": 2_000_000_000}))) == ["a"]
    with pytest.raises(TokenworksError, match="max_price"):
        order(state, asked(routing=Preferences(max_price={"input": 1_999_999_999})))


def settled(**usage: int) -> Settled:
    return Settled("r", 1, 1, "completed", UsageRecord(**usage), first_token_ns=10**8, duration_ns=10**9)


def planned(planner: Planner, state: State, request: Request | None = None) -> list[str]:
    return [target.upstream for target in planner.plan(request or asked(), CALLER, state)]


def test_the_first_one_stays_first_until_another_is_clearly_better() -> None:
    clock = Clock()
    observed = Observed(clock)
    planner = Planner(Facts(observed=observed), clock, draw=lambda: 0.5)
    state = fleet(A, B, sort="latency")
    observed.answered("a", "x", Usage(output=10), 1.0, 2.0)
    observed.answered("b", "x", Usage(output=10), 1.1, 2.1)
    assert planned(planner, state)[0] == "a"
    clock.now += 1.0
    for _ in range(3):
        observed.answered("b", "x", Usage(output=10), 0.9, 1.9)
    clock.now += 1.0
    assert planned(planner, state)[0] == "a"
    for _ in range(30):
        observed.answered("b", "x", Usage(output=10), 0.3, 1.3)
    clock.now += 1.0
    assert planned(planner, state)[0] == "b"


def test_one_in_a_hundred_explores() -> None:
    planner = Planner(Facts(), draw=lambda: 0.005)
    assert planned(planner, fleet(A, B, C, sort="price", a=priced(1), b=priced(2), c=priced(3)))[0] == "b"


@given(st.lists(WISHES, min_size=2, max_size=4), st.lists(LABELS, min_size=1, max_size=4))
def test_what_is_kept_for_one_callers_wishes_is_nobody_elses(
    wishes: list[Preferences], labels: list[UpstreamRecord]
) -> None:
    """Through one planner, again and again, everybody gets what a planner that keeps nothing would say."""
    upstreams = [msgspec.structs.replace(each, id=f"u{n}", provider=f"u{n}") for n, each in enumerate(labels)]
    state = fleet(*upstreams, sort="balanced")
    planner = Planner(Facts(), clock=lambda: 1.0, draw=lambda: 0.5)

    def who(plan: Any) -> Any:
        try:
            return {target.upstream for target in plan()}
        except TokenworksError as error:
            return error.message

    for wanted in wishes * 2:
        request = asked(routing=wanted)
        told = who(partial(planner.plan, request, CALLER, state))
        assert told == who(partial(plan, request, CALLER, state, Facts()))


def test_a_warm_cache_is_kept_while_it_is_cheaper() -> None:
    planner = Planner(Facts(), Clock(), draw=lambda: 0.5)
    state = fleet(A, B, sort="price", a=priced(1), b=priced(1.2, 0.1))
    target = next(each for each in plan(asked(), CALLER, state, Facts()) if each.upstream == "b")
    assert planned(planner, state)[0] == "a"
    planner.answered(asked("Long story"), CALLER, target, settled(cached_input=1000), False)
    assert planned(planner, state, asked("Long story"))[0] == "b"
    assert planned(planner, state, asked("Another"))[0] == "a"
    dearer = fleet(A, B, sort="price", a=priced(1), b=priced(20, 1.5))
    assert planned(planner, dearer, asked("Long story"))[0] == "a"


def test_a_replica_that_knows_the_conversation_is_kept_unless_it_is_much_busier() -> None:
    one, two = upstream("one", local=True), upstream("two", local=True)
    state, in_flight = fleet(one, two), {"one": 1, "two": 1}
    planner = Planner(Facts(in_flight=in_flight), Clock())
    target = plan(asked(), CALLER, state, Facts())[1]
    planner.answered(asked("Story"), CALLER, target, settled(input=10), True)
    assert planned(planner, state, asked("Story"))[0] == "two"
    in_flight["two"] = 4
    assert planned(planner, state, asked("Story"))[0] == "one"


def test_the_callers_order_stands_however_busy_its_first_is() -> None:
    one, two = upstream("one", local=True), upstream("two", local=True)
    planner = Planner(Facts(in_flight={"one": 3}), Clock())
    assert planned(planner, fleet(one, two), asked(routing=Preferences(order=("one",)))) == ["one", "two"]
