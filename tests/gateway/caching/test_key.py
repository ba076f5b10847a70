"""Two requests have one key exactly when nothing that may change the answer, or whose it is, differs."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.caller import Caller
from tokenworks.gateway.caching.key import key
from tokenworks.gateway.routing import vocabulary
from tokenworks.protocols import codec as find_codec

SECRET = b"s" * 32
CALLER = Caller("key_1", "proj_1", "org_1")
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}

value = st.one_of(st.integers(0, 9), st.text(max_size=5), st.booleans(), st.lists(st.integers(0, 9), max_size=2))
# Members that a protocol does not know reach the upstream too.
extra = st.dictionaries(st.sampled_from("abc"), value, max_size=3)
whose = st.dictionaries(st.sampled_from(["user", "safety_identifier", "prompt_cache_key"]), st.text(max_size=5))


def of(
    body: dict[str, Any], *, protocol: str = "openai_chat", caller: Caller = CALLER, secret: bytes = SECRET, **more: Any
) -> str:
    codec = find_codec(protocol)
    headers = more.get("headers", ())
    request = vocabulary.decoded(codec.decode_request, json.dumps(body).encode(), headers)
    for name, said in more.get("request", {}).items():
        setattr(request, name, said)
    if hasattr(codec, "read_headers"):
        codec.read_headers(request, {name.decode(): text.decode() for name, text in headers})
    made = key(secret, codec, request, caller, strict=more.get("strict", False))
    assert made is not None
    return made


@given(extra, extra, whose, whose)
def test_every_member_of_the_body_matters_but_those_that_change_no_answer(
    one: Any, other: Any, fellow: Any, another: Any
) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (of({**BODY, **one, **fellow}) == of({**BODY, **other, **another})) == same


@given(st.permutations(list({**BODY, "temperature": 1, "seed": 3, "x": {"p": 1, "q": 2}}.items())))
def test_the_order_of_members_does_not_matter(members: list[tuple[str, Any]]) -> None:
    assert of(dict(members)) == of({**BODY, "temperature": 1, "seed": 3, "x": {"q": 2, "p": 1}})


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.5},
        {"seed": 1},
        {"messages": [{"role": "user", "content": "Hi "}]},
        {"max_tokens": 5},
        {"n": 2},
        {"stop": ["x"]},
        {"logprobs": True},
        {"stream": True},
        {"service_tier": "flex"},
        {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_shapes_an_answer_changes_the_key(change: dict[str, Any]) -> None:
    assert of(BODY) != of({**BODY, **change})


@pytest.mark.parametrize("same", [{"user": "u"}, {"metadata": {"a": "b"}}, {"safety_identifier": "x"}])
def test_who_asks_within_a_project_does_not(same: dict[str, Any]) -> None:
    assert of(BODY) == of({**BODY, **same})
    assert of(BODY) == of(BODY, caller=replace(CALLER, key_id="key_2"))


def test_whose_it_is_and_where_it_may_come_from_do() -> None:
    zero_retention = [(b"x-tokenworks-zdr", b"true")]
    made = [
        of(BODY),
        of(BODY, caller=replace(CALLER, project_id="proj_2")),
        of(BODY, caller=replace(CALLER, regions=frozenset({"eu"}))),
        of(BODY, secret=b"t" * 32),
        of(BODY, strict=True),
        of(BODY, headers=zero_retention),
        of(BODY, request={"model": "other"}),
        of(BODY, request={"batch": True}),
    ]
    assert len(set(made)) == len(made)


def test_another_protocol_and_its_headers_are_another_request() -> None:
    body = {**BODY, "max_tokens": 5}
    version = [(b"anthropic-version", b"2023-06-01")]
    beta = [*version, (b"anthropic-beta", b"output-128k-2025-02-19")]
    messages = of(body, protocol="anthropic_messages", headers=version)
    assert messages not in (of(body), of(body, protocol="anthropic_messages", headers=beta))


def test_answers_that_others_know_by_their_id_are_not_repeated() -> None:
    codec = find_codec("openai_responses")
    request = codec.decode_request(b'{"model":"m","input":"Hi"}')
    assert key(SECRET, codec, request, CALLER, strict=False) is None
