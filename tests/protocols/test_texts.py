"""Texts of requests in every protocol that is served: found in body and neutral form, and nothing else touched."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.protocols import codec
from tokenworks.protocols.texts import edited_body, edited_json, edited_request

SECRET = 'the s\u00e9cret "quoted"\n'
USER = [{"role": "user", "content": SECRET}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"x": [SECRET]})}}
BODIES: dict[str, dict[str, Any]] = {
    "openai_chat": {
        "model": "m",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": SECRET}]},
            *USER,
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": SECRET},
        ],
        "user": SECRET,
        "metadata": {"note": SECRET},
    },
    "anthropic_messages": {
        "model": "m",
        "max_tokens": 5,
        "system": SECRET,
        "messages": [
            *USER,
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": SECRET, "signature": "x"},
                    {"type": "tool_use", "id": "t", "name": "n", "input": {"url": SECRET, SECRET: 1}},
                ],
            },
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": SECRET}]},
            {
                "role": "user",
                "content": [
                    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": SECRET}},
                    {"type": "server_tool_use", "id": "s", "name": "n", "input": {"url": SECRET}},
                ],
            },
        ],
    },
    "openai_responses": {
        "model": "m",
        "instructions": SECRET,
        "input": [
            *USER,
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": json.dumps({"id": SECRET})},
            {"type": "function_call_output", "call_id": "c", "output": SECRET},
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": SECRET}]},
            {"type": "custom_tool_call_output", "call_id": "c", "output": SECRET},
        ],
    },
    "openai_completions": {"model": "m", "prompt": [SECRET, "b"], "suffix": SECRET},
    "openai_embeddings": {"model": "m", "input": SECRET},
    "rerank": {"model": "m", "query": SECRET, "documents": [SECRET, {"text": SECRET}]},
    "tgi_generate": {"inputs": SECRET},
    "tgi_chat": {"model": "tgi", "messages": USER},
    "tgi_embed": {"inputs": [SECRET]},
    "replicate": {"version": "a" * 64, "input": {"prompt": SECRET, "system_prompt": SECRET}},
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_every_text_is_found_in_both_forms(name: str, ascii_only: bool) -> None:
    body = json.dumps(BODIES[name], ensure_ascii=ascii_only, indent=1).encode()
    request = codec(name).decode_request(body)
    seen: list[str] = []
    assert edited_request(request, lambda text: seen.append(text) or text) is request  # type: ignore[func-returns-value]
    assert SECRET in seen
    edited = edited_request(request, lambda text: text.replace(SECRET, "\u00a7"))
    for form in (edited.body.decode(), repr(asdict(edited))):
        assert "cret" not in form
    again = codec(name).decode_request(edited.body)
    assert again.task == edited.task
    assert edited.body == body.replace(*_written(ascii_only, nested=False)).replace(*_written(ascii_only, nested=True))


def _written(ascii_only: bool, *, nested: bool) -> tuple[bytes, bytes]:
    """How the secret and what replaces it stand in a body; `nested`: within arguments, which are JSON in a string."""

    def written(text: str) -> str:
        inner = json.dumps(text)[1:-1] if nested else text
        return json.dumps(inner, ensure_ascii=ascii_only)[1:-1]

    return written(SECRET).encode(), "\u00a7".encode()


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=10,
    ),
    st.sampled_from([None, 1]),
)
def test_what_is_not_changed_stays_byte_for_byte(value: object, indent: int | None) -> None:
    text = json.dumps({"messages": value}, indent=indent)
    assert edited_body(text.encode(), lambda each: each) == text.encode()
    assert edited_json(text, lambda each: each) == text
    changed = edited_json(text, lambda each: each + "!")
    assert json.dumps(json.loads(changed)).count("!") >= 1
