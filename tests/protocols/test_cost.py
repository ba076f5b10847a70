"""What an answer costs stands in its usage, exactly, and nothing else of the answer changes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.protocols.cost import in_answer, in_stream

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 1}}
TOLD = {"cost": 0.00000012, "cost_nano_usd": 120}

text = st.text(max_size=20) | st.sampled_from(['"usage":{"input_tokens":1}', '"usage":{', "usage"])
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


def encoded(value: Any, *, pretty: bool) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1 if pretty else None).encode()


@given(st.dictionaries(text, plain, max_size=4), st.booleans(), st.integers(0, 10**15))
def test_a_whole_answer(members: dict[str, Any], pretty: bool, charge: int) -> None:
    body = {**members, "usage": USAGE, "tail": members}
    told = json.loads(in_answer(encoded(body, pretty=pretty), charge), parse_float=str)
    assert told.pop("usage") == {**USAGE, "cost": told_cost(charge), "cost_nano_usd": charge}
    assert told == {name: value for name, value in body.items() if name != "usage"}


def told_cost(charge: int) -> Any:
    whole, rest = divmod(charge, 10**9)
    digits = f"{rest:09d}".rstrip("0")
    return f"{whole}.{digits}" if digits else whole


@given(text, st.booleans())
def test_a_part_of_a_stream(content: str, pretty: bool) -> None:
    delta = encoded({"choices": [{"delta": {"content": content}}], "usage": None}, pretty=False)
    last = encoded({"choices": [], "usage": USAGE, "tail": content}, pretty=False)
    out = b"data: " + delta + b"\n\ndata: " + last.replace(b'"usage":', b'"usage" : ' if pretty else b'"usage":')
    told = in_stream(out + b"\n\ndata: [DONE]\n\n", lambda: 120)
    blocks = told.split(b"\n\n")
    assert (blocks[0], blocks[2:]) == (b"data: " + delta, [b"data: [DONE]", b""])
    assert json.loads(blocks[1][6:]) == {"choices": [], "usage": {**USAGE, **TOLD}, "tail": content}
    assert in_stream(b"data: " + delta + b"\n\n", lambda: 120) == b"data: " + delta + b"\n\n"


def test_what_an_upstream_says_of_costs_is_not_passed_on() -> None:
    theirs = {**USAGE, "cost": 9.5, "cost_details": {"upstream_inference_cost": 9.5}, "is_byok": False}
    assert json.loads(in_answer(encoded({"usage": theirs}, pretty=False), 120))["usage"] == {**USAGE, **TOLD}
    told = in_stream(b"data: " + encoded({"usage": theirs}, pretty=False) + b"\n\n", lambda: 120)
    assert json.loads(told[6:])["usage"] == {**USAGE, **TOLD}


def test_the_beginning_of_a_stream_is_no_total() -> None:
    first = b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":5}}}\n\n'
    last = b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":7}}\n\n'
    assert in_stream(first, lambda: 120) == first
    told = in_stream(first + last, lambda: 120)
    assert told.startswith(first)
    assert json.loads(told[len(first) :].split(b"data: ")[1])["usage"] == {"output_tokens": 7, **TOLD}


def test_usage_that_is_not_an_answers_usage_is_left_alone() -> None:
    tool = {"content": [{"type": "tool_use", "input": {"usage": {"input_tokens": 5}}}], "usage": {"input_tokens": 1}}
    told = json.loads(in_answer(encoded(tool, pretty=False), 120))
    assert told["content"] == tool["content"]
    schema = encoded({"response": {"usage": USAGE, "tools": [{"usage": {"type": "string"}}]}}, pretty=False)
    nested = json.loads(in_stream(schema, lambda: 120))["response"]
    assert nested == {"usage": {**USAGE, **TOLD}, "tools": [{"usage": {"type": "string"}}]}


@pytest.mark.parametrize("body", [b"[[0.1]]", b'{"usage":null}', b'{"usage":3}', b'{"usage"', b"", b'{"usage":{}}'])
def test_an_answer_without_usage_is_as_it_was(body: bytes) -> None:
    assert in_answer(body, 5) == in_stream(body, lambda: 5) == body
