"""What docs/parameters.md calls honoured has an effect on a real model: SmolLM2 on llama.cpp's server."""

from typing import Any

import pytest

ASK = [{"role": "user", "content": "Count: one two three"}]
CHAT: dict[str, Any] = {"messages": ASK, "max_tokens": 8, "temperature": 0}


@pytest.fixture
def text(smollm2_server: Any) -> Any:
    """The text that answers a chat."""

    def ask(**more: Any) -> str:
        status, answer = smollm2_server.call("POST", "/v1/chat/completions", {"model": "smollm2-135m", **CHAT, **more})
        assert status == 200, answer
        return str(answer["choices"][0]["message"]["content"])

    return ask


def test_sampling_is_really_done(text: Any) -> None:
    greedy = text()
    for narrow in ({"top_k": 1}, {"top_p": 0.0001}, {"min_p": 1.0}):
        assert text(temperature=2.0, seed=1, **narrow) == greedy, narrow
    assert len({text(temperature=1.5, typical_p=0.0001, seed=seed) for seed in range(3)}) == 1  # the most typical token
    for penalty in ({"repetition_penalty": 3.0}, {"frequency_penalty": 2.0}, {"presence_penalty": 2.0}):
        assert text(max_tokens=16, **penalty) != text(max_tokens=16), penalty
    assert text(logit_bias={"260": 100}) == " the" * 8
    assert text(temperature=1.5, seed=3) == text(temperature=1.5, seed=3)
    assert len({text(temperature=1.5, seed=seed) for seed in range(3)}) > 1


@pytest.mark.parametrize("stream", [False, True])
def test_text_completions_echo_and_refuse_to_fill(smollm2_server: Any, stream: bool) -> None:
    body = {"model": "smollm2-135m", "prompt": ["one two", "three"], "max_tokens": 3, "temperature": 0, "n": 1}
    if not stream:
        status, answer = smollm2_server.call("POST", "/v1/completions", {**body, "echo": True})
        plain = smollm2_server.call("POST", "/v1/completions", body)[1]
        assert status == 200, answer
        for prompt, given, choice in zip(body["prompt"], answer["choices"], plain["choices"], strict=True):
            assert given["text"] == prompt + choice["text"]
    status, answer = smollm2_server.call("POST", "/v1/completions", {**body, "suffix": "x", "stream": stream})
    assert (status, answer["error"]["param"]) == (400, "suffix")
