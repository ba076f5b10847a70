"""Virtual models before the plan: whatever they say, nobody answers who may not, and no key gets more than it may."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.aliases.reading import read
from tokenworks.core.aliases.resolving import cycle, models
from tokenworks.core.caller import Caller
from tokenworks.core.errors import InvalidRequest, NotFound, PermissionDenied, TokenworksError, Unavailable
from tokenworks.core.request import Request
from tokenworks.gateway.routing.aliases import told
from tokenworks.gateway.routing.plan import Facts
from tokenworks.gateway.routing.planner import Planner
from tokenworks.gateway.routing.vocabulary import choices
from tokenworks.protocols import codec
from tokenworks.snapshot.records import (
    FREE,
    AliasRecord,
    ModelRecord,
    PriceRecord,
    ResidencyRecord,
    SinkRecord,
    TargetRecord,
    UpstreamRecord,
)
from tokenworks.snapshot.residency import OWN, breach
from tokenworks.snapshot.state import State

CALLER = Caller("key", "project", "organization")
UPSTREAMS = [UpstreamRecord(f"u-{region}", "p", ("openai_chat",), "http://x", region=region) for region in ("eu", "us")]
MODELS = [
    ModelRecord("both", 1, (TargetRecord("u-eu", "b"), TargetRecord("u-us", "b")), prices=(FREE,)),
    ModelRecord("european", 1, (TargetRecord("u-eu", "e"),), prices=(FREE,)),
    ModelRecord("american", 1, (TargetRecord("u-us", "a"),), prices=(FREE,)),
]
NAMES = ["a1", "a2", "a3"]


def asked(model: str, text: str = "Hi", **members: Any) -> Request:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **members}
    return codec("openai_chat").decode_request(json.dumps(body).encode())


def state(*aliases: AliasRecord, **changes: Any) -> State:
    made = State.of(revision=1, models=MODELS, upstreams=UPSTREAMS)
    return replace(made, aliases={alias.name: alias for alias in aliases}, **changes)


def alias(name: str, definition: dict[str, Any], prices: tuple[PriceRecord, ...] = ()) -> AliasRecord:
    return AliasRecord(name, 1, 1, definition, prices)


TO = st.dictionaries(st.sampled_from([*NAMES, "both", "european", "american", "gone"]), st.integers(1, 5), min_size=1)
DEFINITIONS = st.fixed_dictionaries(
    {"to": TO},
    optional={
        "canary": st.fixed_dictionaries({"to": st.sampled_from([*NAMES, "american"]), "percent": st.integers(0, 100)}),
        "rules": st.lists(
            st.fixed_dictionaries({"when": st.just({"metadata": {"tier": "gold"}}), "to": TO}), max_size=2
        ),
        "sticky": st.sampled_from(["session", "key", "request"]),
    },
)
KEYS = st.none() | st.sets(st.sampled_from([*NAMES, "both", "european"]), min_size=1).map(frozenset)


@given(
    st.dictionaries(st.sampled_from(NAMES), DEFINITIONS, min_size=1),
    st.lists(st.tuples(st.sampled_from([*NAMES, "both"]), KEYS, st.text(max_size=3), st.booleans()), max_size=6),
    st.sampled_from([None, "eu", "us"]),
)
def test_no_plan_leaves_what_is_allowed(
    definitions: dict[str, Any], requests: list[tuple[str, frozenset[str] | None, str, bool]], region: str | None
) -> None:
    aliases = [alias(name, definition) for name, definition in definitions.items()]
    policy = ResidencyRecord("project", regions=(region,)) if region else None
    held = {"residency": {policy.id: policy}} if policy else {}
    sinks = {name: SinkRecord(name, region or "") for name in OWN}
    world, planner = state(*aliases, sinks=sinks, **held), Planner(Facts())
    circular = cycle({each.name: read(each.name, each.definition) for each in aliases})
    for name, allowed, text, gold in requests:  # of one project, one after the other: what is kept is everybody's
        caller = replace(CALLER, models=allowed)
        request = asked(name, text, metadata={"tier": "gold"} if gold else {})
        try:
            [choice] = choices(request, world, caller)
            targets = planner.plan(choice, caller, world)
        except TokenworksError as error:
            assert isinstance(error, PermissionDenied | Unavailable | InvalidRequest | NotFound)
            if isinstance(error, PermissionDenied) and error.code != "residency_denied":
                assert allowed is not None
                assert name not in allowed
            continue
        assert allowed is None or name in allowed, "the key must allow what its caller names"
        if name in world.aliases and circular is None:
            assert choice.model in models(name, world.alias)
        assert {target.model for target in targets} <= {each.model for each in world.models[choice.model].targets}
        for target in targets:
            assert policy is None or breach([policy], world.upstreams[target.upstream]) is None


def test_what_is_kept_of_a_plan_lets_no_other_key_in() -> None:
    world, planner = state(alias("chat", {"to": "both"})), Planner(Facts())
    stranger = replace(CALLER, key_id="other", models=frozenset({"european"}))
    for name in ("both", "chat"):
        [choice] = choices(asked(name), world, CALLER)
        assert planner.plan(choice, CALLER, world)
        [choice] = choices(asked(name), world, stranger)
        with pytest.raises(PermissionDenied, match=f"may not use the model '{name}'"):
            planner.plan(choice, stranger, world)


def test_what_is_kept_of_a_plan_has_the_price_of_its_own_alias() -> None:
    own = PriceRecord({"input": 7, "output": 7}, id="own")
    world, planner = state(alias("chat", {"to": "both"}, (own,)), alias("plain", {"to": "both"})), Planner(Facts())
    for name, price in (("both", "free"), ("chat", "own"), ("plain", "free"), ("chat", "own")):
        [choice] = choices(asked(name), world, CALLER)
        [first, *_] = planner.plan(choice, CALLER, world)
        found = first.price.at(5)
        assert found is not None
        assert found.id == price


def test_a_model_keeps_its_name() -> None:
    world = state(alias("both", {"to": "european"}))
    [choice] = choices(asked("both"), world, CALLER)
    assert (choice.model, choice.via) == ("both", None)


@pytest.mark.parametrize(
    "value, labels",
    [
        ('{"tier": "gold", "n": 5, "paid": true}', {"tier": "gold", "n": "5", "paid": "true"}),
        ("tier=gold, team = blue ,", {"tier": "gold", "team": "blue"}),
        ("note=a=b", {"note": "a=b"}),
        ("", {}),
        ('{"tier": ["gold"]}', None),
        ('{"tier": ', None),
        ("gold", None),
        ("=gold", None),
        (",".join(f"k{n}=1" for n in range(51)), None),
    ],
)
def test_metadata_in_a_header(value: str, labels: dict[str, str] | None) -> None:
    request = asked("both")
    if labels is None:
        with pytest.raises(InvalidRequest) as refused:
            told(request, [(b"x-tokenworks-metadata", value.encode())])
        assert refused.value.param == "x-tokenworks-metadata"
        return
    told(request, [(b"x-tokenworks-metadata", value.encode()), (b"x-tokenworks-session", b"mine")])
    assert (request.labels, request.session) == (labels, "mine")
