"""Who holds what of a prompt, by its text: the names, what is learned of them, and what a plan makes of it."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.caller import Caller
from tokenworks.core.request import Request
from tokenworks.core.routing import Preferences
from tokenworks.gateway.routing import held as holding
from tokenworks.gateway.routing.held import Held
from tokenworks.gateway.routing.plan import Facts
from tokenworks.gateway.routing.planner import BUSIER, Planner
from tokenworks.gateway.routing.prompt_keys import SMALLEST, covered, prompt_keys
from tokenworks.protocols import codec
from tokenworks.protocols.worker.kv import AllBlocksCleared, BlockRemoved, BlockStored, PromptNamed
from tokenworks.snapshot.records import (
    FREE,
    ModelRecord,
    PolicyRecord,
    ResidencyRecord,
    SinkRecord,
    TargetRecord,
    UpstreamRecord,
)
from tokenworks.snapshot.residency import OWN
from tokenworks.snapshot.state import State

CALLER = Caller("key", "project", "organization")
TEXT = "".join(f"{number:08d}" for number in range(1000))


def asked(*texts: str, routing: Preferences | None = None) -> Request:
    body = {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}
    request = codec("openai_chat").decode_request(json.dumps(body).encode())
    request.routing = routing
    return request


def replica(name: str, **labels: Any) -> UpstreamRecord:
    return UpstreamRecord(name, name, ("worker",), "http://x", local=True, **labels)


def state_of(*upstreams: UpstreamRecord, sort: str = "order") -> State:
    model = ModelRecord(
        "m", 1, tuple(TargetRecord(each.id, "m") for each in upstreams), prices=(FREE,), policy=PolicyRecord(sort=sort)
    )
    return State.of(revision=1, keys=[], models=[model], upstreams=upstreams)


def told(held: Held, **blocks: list[int]) -> None:
    """Each holds these and tells so."""
    for name, numbers in blocks.items():
        held.take(name, AllBlocksCleared(0, name, 16))
        held.take(name, BlockStored(1, "ram", numbers))


def order(planner: Planner, state: State, request: Request) -> list[str]:
    return [target.upstream for target in planner.plan(request, CALLER, state)]


@given(st.integers(0, 5000), st.text(max_size=300))
def test_prompts_that_begin_alike_have_names_in_common(same: int, rest: str) -> None:
    one, other = prompt_keys(asked(TEXT[:same] + "x" + rest), "p"), prompt_keys(asked(TEXT), "p")
    alike = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    assert alike >= (same - SMALLEST) // (2 * SMALLEST)
    assert all(a != b for a, b in zip(one[alike:], other[alike:], strict=False))


def test_names_are_of_the_project_the_model_and_what_was_said_by_whom() -> None:
    names = prompt_keys(asked(TEXT), "p")
    assert covered(len(names)) <= len(TEXT) + 6 < covered(len(names) + 1)
    assert prompt_keys(asked(TEXT, "And then?"), "p")[: len(names)] == names
    request = asked(TEXT)
    request.model = "another"
    body = {"model": "m", "messages": [{"role": "system", "content": TEXT}]}
    system = codec("openai_chat").decode_request(json.dumps(body).encode())
    salted = asked(TEXT)
    salted.salt = "another"
    for other in (
        prompt_keys(salted, "p"),
        prompt_keys(asked(TEXT), "q"),
        prompt_keys(request, "p"),
        prompt_keys(system, "p"),
    ):
        assert not set(names) & set(other)
    assert prompt_keys(asked("short"), "p") == []


def test_a_part_of_the_text_is_a_part_of_the_blocks() -> None:
    held, keys = Held(), prompt_keys(asked(TEXT), "p")
    told(held, a=list(range(100)), b=list(range(10)), c=[])
    assert held.tokens(keys, "abc") == {}  # it is not known which tokens these are
    held.take("a", PromptNamed(2, keys, list(range(100))))
    assert held.tokens(keys, "abcd") == {"a": 1600, "b": 160, "c": 0, "d": 0}
    half = keys[: len(keys) // 2]
    assert held.tokens(half, "ab") == {"a": 16 * (100 * covered(len(half)) // covered(len(keys))), "b": 160}
    held.take("a", BlockRemoved(3, "ram", list(range(50, 100))))
    assert held.tokens(keys, "a") == {"a": 800}
    held.take("a", BlockStored(4, "slot", [50]))
    held.take("a", BlockStored(5, "ram", [50]))
    held.take("a", BlockRemoved(6, "slot", [50]))
    assert held.tokens(keys, "a") == {"a": 816}
    held.take("a", AllBlocksCleared(0, "after its restart", 16))
    assert held.tokens(keys, "ab") == {"a": 0, "b": 160}


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "MOST_KEYS", 10)
    held = Held()
    told(held, a=[1, 2])
    for number in range(8):
        held.take("a", PromptNamed(2, [2 * number, 2 * number + 1], [1, 2]))
        assert held.tokens([1], "a")  # what is used stays
    assert len(held._known) == 10


def test_who_comes_back_says_where_it_was() -> None:
    held = Held()
    assert (held.wanted("a").epoch, held.wanted("a").after, held.live("a")) == ("", -1, False)
    told(held, a=[1])
    held.heard("a", live=False)
    assert (held.wanted("a").epoch, held.wanted("a").after, held.live("a")) == ("a", 1, False)
    held.heard("a", live=True)
    assert held.live("a")
    held.forget("a")
    assert held.wanted("a").after == -1
    with pytest.raises(ValueError, match="never what it held"):
        held.take("a", BlockStored(2, "ram", [2]))


def busy(planner: Planner, requests: int) -> None:
    """So many are answered by b."""
    assert isinstance(planner.facts.in_flight, Counter)
    planner.facts.in_flight["b"] = requests


@pytest.fixture
def planner() -> Planner:
    """Of two replicas that tell, a and b; b holds the prompt."""
    planner = Planner(Facts(in_flight=Counter()), draw=lambda: 0.5)
    told(planner.facts.held, a=[], b=list(range(100)))
    planner.facts.held.take("b", PromptNamed(2, prompt_keys(asked(TEXT), "project"), list(range(100))))
    return planner


@pytest.mark.parametrize("sort", ["order", "price", "latency"])
def test_the_one_that_holds_most_is_first_while_it_is_not_much_busier(planner: Planner, sort: str) -> None:
    state = state_of(replica("a"), replica("b"), sort=sort)
    request = asked(TEXT, "And then?")
    assert order(planner, state, request) == ["b", "a"]
    assert list(request.prefixes) == prompt_keys(request, "project")  # the engine tells which blocks they are
    busy(planner, BUSIER)
    assert order(planner, state, asked(TEXT)) == ["b", "a"]
    busy(planner, BUSIER + 1)
    assert order(planner, state, asked(TEXT)) == ["a", "b"]


def test_a_small_part_is_not_worth_a_busier_one(planner: Planner) -> None:
    state = state_of(replica("a"), replica("b"))
    planner.facts.held.take("b", BlockRemoved(3, "ram", list(range(4, 100))))
    assert order(planner, state, asked(TEXT)) == ["b", "a"]  # 64 tokens
    busy(planner, 1)
    assert order(planner, state, asked(TEXT)) == ["a", "b"]


def test_nothing_else_gives_way(planner: Planner) -> None:
    """Neither what the caller or a policy forbids, nor the caller's own order, nor a provider that is to come first."""
    a, b = replica("a", jurisdiction="DE"), replica("b", jurisdiction="US")
    assert order(planner, state_of(a, b), asked(TEXT, routing=Preferences(ignore=("b",)))) == ["a"]
    assert order(planner, state_of(a, b), asked(TEXT, routing=Preferences(order=("a",)))) == ["a", "b"]
    away = replica("b", state="restarting")
    assert order(planner, state_of(a, away), asked(TEXT)) == ["a"]
    policy, own = ResidencyRecord("project", jurisdictions=("DE",)), {name: SinkRecord(name, "", "DE") for name in OWN}
    kept = replace(state_of(a, b), residency={"project": policy}, sinks=own)
    assert order(planner, kept, asked(TEXT)) == ["a"]
    first = UpstreamRecord("first", "first", ("openai_chat",), "http://x")
    assert order(planner, state_of(first, a, b), asked(TEXT))[0] == "first"


def test_where_one_does_not_tell_it_is_as_without(planner: Planner) -> None:
    state = state_of(replica("a"), replica("b"), replica("silent"))
    assert order(planner, state, asked(TEXT)) == ["a", "b", "silent"]
    planner.facts.held.heard("b", live=False)
    assert order(planner, state_of(replica("a"), replica("b")), asked(TEXT)) == ["a", "b"]
