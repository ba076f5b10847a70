"""Virtual models: what may be written, and where each request goes."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.aliases.asking import facts
from tokenworks.core.aliases.hashing import bucket, chosen, point
from tokenworks.core.aliases.reading import MOST_VALUES, Unreadable, read
from tokenworks.core.aliases.records import PARTS, STICKY, Alias, Facts, Resolution
from tokenworks.core.aliases.resolving import DEEPEST, Endless, cycle, models, resolve
from tokenworks.core.caller import Caller
from tokenworks.core.messages import Image, Message, Role, Text, Tool
from tokenworks.core.request import Conversation, Request

SESSIONS = [Facts("key", "proj", "org", session=f"session {n}", request_id=f"{n}") for n in range(4_000)]


def resolved(table: dict[str, Any], asked: Facts, **others: dict[str, Any]) -> Resolution:
    found = {name: read(name, each) for name, each in {"chat": table, **others}.items()}
    resolution = resolve("chat", found.get, asked)
    assert resolution is not None
    return resolution


def test_the_numbers_are_those_of_every_gateway_and_of_every_version() -> None:
    """They decide who is in a canary: should one change, every conversation flips at once."""
    assert point("proj\nsession") == 6_571_006_347_200_957_296
    assert [bucket(point(f"{n}"), "chat", PARTS) for n in range(3)] == [711_402, 663_623, 820_249]
    assert "".join(chosen(point(f"{n}"), "chat", {"a": 3, "b": 1}) for n in range(16)) == "aaaaaaaaabaaaaaa"


@pytest.mark.parametrize("weights", [{"a": 1, "b": 1}, {"a": 90, "b": 9, "c": 1}, {"a": 0, "b": 5, "c": 7, "d": 12}])
def test_weights_are_met(weights: dict[str, int]) -> None:
    counted = Counter(resolved({"to": weights}, each).model for each in SESSIONS)
    total = sum(weights.values())
    for name, weight in weights.items():
        share = weight / total
        deviation = math.sqrt(len(SESSIONS) * share * (1 - share))
        assert abs(counted[name] - len(SESSIONS) * share) <= 4 * deviation


def test_a_changed_weight_moves_nobody_between_the_others() -> None:
    before, after = {"a": 5, "b": 3, "c": 2}, {"a": 5, "b": 3, "c": 4}
    moved = [(resolved({"to": before}, each).model, resolved({"to": after}, each).model) for each in SESSIONS]
    changed = {pair for pair in moved if pair[0] != pair[1]}
    assert changed == {("a", "c"), ("b", "c")}


percentages = st.integers(0, 1_000_000).map(lambda parts: parts / 10_000)


@given(st.lists(percentages, min_size=2, max_size=5).map(sorted), st.text(max_size=20), st.dictionaries(
    st.sampled_from("abcd"), st.integers(1, 100), min_size=1))  # fmt: skip
def test_a_growing_canary_only_takes_new_ones(shares: list[float], session: str, weights: dict[str, int]) -> None:
    asked = Facts("key", "proj", "org", session=session, request_id="r")
    ways = [resolved({"to": weights, "canary": {"to": "new", "percent": share}}, asked).model for share in shares]
    for earlier, later in pairwise(ways):
        assert later in (earlier, "new"), "who was not taken stays where it was, and who was taken stays taken"


def test_a_canary_has_its_share_and_its_borders() -> None:
    for percent in (0, 0.5, 25, 100):
        table = {"to": "old", "canary": {"to": "new", "percent": percent}}
        taken = sum(resolved(table, each).model == "new" for each in SESSIONS)
        deviation = math.sqrt(len(SESSIONS) * percent / 100 * (1 - percent / 100))
        assert abs(taken - len(SESSIONS) * percent / 100) <= 4 * deviation


@given(st.sampled_from([*STICKY, "metadata.team"]), st.text(max_size=5), st.integers(0, 9), st.integers(0, 9))
def test_what_is_kept_together_stays_together(sticky: str, said: str, one: int, other: int) -> None:
    """Whatever else differs between two requests."""
    table = {"to": dict.fromkeys("abcdefgh", 1), "sticky": sticky, "canary": {"to": "new", "percent": 30}}
    kept = {"key": "key_id", "project": "project_id", "user": "user", "session": "session", "request": "request_id"}
    others = {"key_id", "user", "session", "request_id"} | ({"project_id"} if sticky == "organization" else set())
    differs = {name: f"{name} {one}" for name in others - {kept.get(sticky)}}
    first = Facts("key", "proj", "org", "user", "session", "request", metadata={"team": said, "other": f"{other}"})
    if sticky == "metadata.team" and not said:
        del differs["session"]  # who says nothing is kept together as a conversation
    metadata = {"team": said, "other": f"{one}"}
    second = replace(first, **differs, metadata=metadata, needs=frozenset({"tools"}), prompt_tokens=one)
    assert resolved(table, first).model == resolved(table, second).model


def test_nobodys_session_is_another_projects() -> None:
    table = {"to": dict.fromkeys("abcdefgh", 1)}
    assert len({resolved(table, Facts("k", f"proj {n}", "org", session="1")).model for n in range(50)}) == 8


@pytest.mark.parametrize(
    "when, holds, misses",
    [
        ({"metadata": {"tier": "gold"}}, {"metadata": {"tier": "gold"}}, {"metadata": {"tier": "golden"}}),
        ({"metadata": {"tier": ["gold", "x"]}}, {"metadata": {"tier": "x"}}, {"metadata": {}}),
        ({"metadata": {"t": {"prefix": ["eu-", "ch-"]}}}, {"metadata": {"t": "ch-1"}}, {"metadata": {"t": "us-1"}}),
        ({"metadata": {"a": "1", "b": "2"}}, {"metadata": {"a": "1", "b": "2"}}, {"metadata": {"a": "1"}}),
        ({"key": "k"}, {"key_id": "k"}, {"key_id": "l"}),
        ({"project": ["p", "q"]}, {"project_id": "q"}, {"project_id": "r"}),
        ({"organization": {"prefix": "org_"}}, {"organization_id": "org_1"}, {"organization_id": "1"}),
        ({"user": {"prefix": ""}}, None, None),
        ({"user": {"prefix": "test-"}}, {"user": "test-1"}, {"user": ""}),
        ({"protocol": "some_protocol"}, {"protocol": "some_protocol"}, {"protocol": "another"}),
        ({"needs": ["tools", "stream"]}, {"needs": frozenset({"tools", "stream", "vision"})}, {"needs": {"tools"}}),
        ({"prompt_tokens": {"above": 10}}, {"prompt_tokens": 11}, {"prompt_tokens": 10}),
        ({"prompt_tokens": {"above": 10, "below": 20}}, {"prompt_tokens": 19}, {"prompt_tokens": 20}),
        ({"hours": "08:00-17:30"}, {"now": 8 * 3600}, {"now": 17.5 * 3600}),
        ({"hours": "22:00-06:00"}, {"now": 5.99 * 3600}, {"now": 6 * 3600}),
        ({"days": ["sat", "sun"]}, {"now": 2 * 86_400}, {"now": 4 * 86_400}),  # 3 January 1970 was a Saturday
        ({"key": "k", "days": "thu"}, {"key_id": "k", "now": 1}, {"key_id": "k", "now": 86_400}),
    ],
)
def test_a_rule_holds_when_all_that_it_states_does(when: Any, holds: Any, misses: Any) -> None:
    table = {"to": "usual", "rules": [{"name": "mine", "when": when, "to": "special"}]}
    if holds is None:
        with pytest.raises(Unreadable):
            read("chat", table)
        return
    [step] = resolved(table, Facts(**holds)).steps
    assert (step.rule, step.to) == ("mine", "special")
    [step] = resolved(table, Facts(**misses)).steps
    assert (step.rule, step.to) == ("", "usual")


def test_the_first_rule_that_holds_decides_and_the_canary_takes_of_the_rest() -> None:
    table = {
        "to": "usual",
        "canary": {"to": "new", "percent": 100},
        "rules": [
            {"when": {"user": "a"}, "to": "first"},
            {"when": {"user": ["a", "b"]}, "to": {"second": 1, "never": 0}},
        ],
    }
    taken = [resolved(table, Facts(user=user)).steps[0] for user in ("a", "b", "c")]
    assert [(step.rule, step.to) for step in taken] == [("rule 1", "first"), ("rule 2", "second"), ("canary", "new")]


def test_aliases_of_aliases_tell_every_step_and_the_first_copy() -> None:
    inner = {"to": "deep", "shadow": {"to": "other", "percent": 100, "copies": 3}}
    found = resolved({"to": "inner"}, Facts(request_id="1"), inner=inner)
    assert [(step.alias, step.to) for step in found.steps] == [("chat", "inner"), ("inner", "deep")]
    assert (found.alias, found.model, found.shadow, found.copies) == ("chat", "deep", "other", 3)
    outer = {"to": "inner", "shadow": {"to": "mine", "percent": 100}}
    assert resolved(outer, Facts(request_id="1"), inner=inner).shadow == "mine"


def test_copies_are_drawn_by_request() -> None:
    table = {"to": "usual", "shadow": {"to": "tried", "percent": 20}}
    copied = sum(bool(resolved(table, replace(SESSIONS[0], request_id=f"{n}")).shadow) for n in range(4_000))
    assert abs(copied - 800) <= 4 * math.sqrt(4_000 * 0.2 * 0.8)


NAMES = "abcdefg"


def graph(edges: list[tuple[str, str]]) -> dict[str, Alias]:
    named: dict[str, dict[str, int]] = {}
    for name, to in edges:
        named.setdefault(name, {})[to] = 1
    return {name: read(name, {"to": to}) for name, to in named.items()}


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES + "xyz")), max_size=14), st.text(max_size=3))
def test_circles_are_found_and_without_one_every_way_ends_among_what_is_named(
    edges: list[tuple[str, str]], session: str
) -> None:
    aliases = graph(edges)
    left = {name: set(alias.names()) & aliases.keys() for name, alias in aliases.items()}
    while free := [name for name, to in left.items() if not to & left.keys()]:
        for name in free:
            del left[name]
    way = cycle(aliases)
    assert bool(left) == (way is not None)
    if way is not None:
        assert way[0] == way[-1]
        assert all(to in aliases[name].names() for name, to in pairwise(way))
        return
    for name in aliases:
        found = resolve(name, aliases.get, Facts(session=session))
        assert found is not None
        assert found.model in models(name, aliases.get)
        assert found.model not in aliases


def test_a_way_that_is_too_long_is_refused() -> None:
    chain = {f"n{n}": read(f"n{n}", {"to": f"n{n + 1}"}) for n in range(DEEPEST + 1)}
    assert cycle(chain) == [f"n{n}" for n in range(DEEPEST + 1)]
    del chain["n0"]
    assert cycle(chain) is None
    circle = {"a": read("a", {"to": "b"}), "b": read("b", {"to": "a"})}
    with pytest.raises(Endless, match="a -> b -> a"):
        resolve("a", circle.get, Facts())


def test_a_copy_may_lead_in_a_circle_no_more_than_an_answer() -> None:
    assert cycle({"a": read("a", {"to": "m", "shadow": {"to": "a", "percent": 1}})}) == ["a", "a"]


@pytest.mark.parametrize(
    "table, said",
    [
        ("x", "must be a table"),
        ({}, 'has no "to"'),
        ({"to": 3}, "to must be a name"),
        ({"to": {}}, "to must be a name"),
        ({"to": {"a": 0}}, "to has no weight above 0"),
        ({"to": {"a": -1}}, "to gives 'a' no weight"),
        ({"to": {"a": True}}, "to gives 'a' no weight"),
        ({"to": {"a": 1.5}}, "to gives 'a' no weight"),
        ({"to": "a b"}, "to must be the name"),
        ({"to": "a", "sticky": "ip"}, "sticky must be one of key,"),
        ({"to": "a", "sticky": "metadata."}, "sticky must be one of key,"),
        ({"to": "a", "canary": {"to": "b"}}, "canary has no 'percent'"),
        ({"to": "a", "canary": {"to": "b", "percent": 101}}, "canary.percent must be a percentage"),
        ({"to": "a", "canary": {"to": "b", "percent": math.nan}}, "canary.percent must be a percentage"),
        ({"to": "a", "canary": {"to": "b", "percent": 0.00001}}, "canary.percent has more than four"),
        ({"to": "a", "canary": {"to": "b", "percent": 1, "copies": 1}}, "canary.copies is unknown"),
        ({"to": "a", "shadow": {"to": "b", "percent": 1, "copies": 0}}, "shadow.copies must be a whole number"),
        ({"to": "a", "rules": {}}, "rules must be an array"),
        ({"to": "a", "rules": [{"to": "b"}]}, "rules[0] has no 'when'"),
        ({"to": "a", "rules": [{"when": {}, "to": "b"}]}, "rules[0].when states no condition"),
        ({"to": "a", "rules": [{"when": {"ip": "1"}, "to": "b"}]}, "rules[0].when.ip is unknown"),
        ({"to": "a", "rules": [{"when": {"needs": ["wings"]}, "to": "b"}]}, "rules[0].when.needs names 'wings'"),
        ({"to": "a", "rules": [{"when": {"hours": "9-17"}, "to": "b"}]}, "rules[0].when.hours must be hours"),
        ({"to": "a", "rules": [{"when": {"hours": "09:00-09:00"}, "to": "b"}]}, "hours begins when it ends"),
        ({"to": "a", "rules": [{"when": {"metadata": {}}, "to": "b"}]}, "rules[0].when.metadata must be a table"),
        ({"to": "a", "rules": [{"when": {"metadata": {"x": 1}}, "to": "b"}]}, "rules[0].when.metadata.x must be a"),
        ({"to": "a", "rules": [{"when": {"user": {"suffix": "x"}}, "to": "b"}]}, "rules[0].when.user must be a text"),
        ({"to": "a", "rules": [{"when": {"key": ["x"] * (MOST_VALUES + 1)}, "to": "b"}]}, "when.key must be a text"),
        ({"to": "a", "rules": [{"when": {"user": "u"}, "to": "b", "name": ""}]}, "rules[0].name must be a name"),
        ({"to": "a", "rules": [{"when": {"user": "u"}, "to": "b", "name": "n"}] * 2}, "rules[1].name 'n' is the name"),
        ({"to": "a", "rules": [{"when": {"prompt_tokens": {"above": -1}}, "to": "b"}]}, "prompt_tokens.above must be"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said_with_its_place(table: Any, said: str) -> None:
    with pytest.raises(Unreadable) as caught:
        read("chat", table)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["", "a b", "a:floor", "/a", "a/versions", "try", "é", "a" * 300])
def test_names_that_could_not_be_called(name: str) -> None:
    with pytest.raises(Unreadable, match="is no name for an alias"):
        read(name, {"to": "m"})


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(Unreadable) as caught:
        read("chat", {"too": "a", "sticky": 1, "canary": {"percent": 5}})
    assert [path for path, _ in caught.value.problems] == [("too",), (), ("sticky",), ("canary",)]


def asked(*texts: str, **members: Any) -> Request:
    roles = (Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER)
    messages = [Message(role, [Text(text)]) for role, text in zip(roles, texts, strict=False)]
    return Request("chat", Conversation(messages), "some_protocol", b"x" * 400, **members)


def test_a_conversation_is_the_same_one_while_it_grows() -> None:
    caller = Caller("key", "proj", "org")
    first = facts(asked("Be brief.", "Hi"), caller, 0)
    later = facts(asked("Be brief.", "Hi", "Hello!", "How are you?"), caller, 0)
    assert first.session == later.session != ""
    assert facts(asked("Be brief.", "Hey"), caller, 0).session != first.session
    assert facts(asked("Be brief.", "Hi", session="mine"), caller, 0).session == "mine"
    assert facts(asked("Be brief.", "Hi", metadata={"session_id": "9"}), caller, 0).session == "9"


def test_the_facts_of_a_request() -> None:
    request = asked("", "Hi", user="u", metadata={"a": "body", "b": "body"}, labels={"a": "header"}, stream=True)
    assert isinstance(request.task, Conversation)
    request.task.tools = [Tool("f", "", {})]
    request.task.messages[1].parts.append(Image(url="http://x"))
    found = facts(request, Caller("key", "proj", "org"), 5.0)
    assert found.metadata == {"a": "header", "b": "body", "user_id": "u"}
    assert found.needs == {"tools", "vision", "stream"}
    assert (found.user, found.prompt_tokens, found.key_id, found.now) == ("u", 100, "key", 5.0)
