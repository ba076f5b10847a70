"""Capabilities are facts of the model: what it lacks is refused by name, what can be done without is reported."""

import json
from typing import Any

import pytest

from tokenworks.core.caller import Caller
from tokenworks.core.errors import InvalidRequest
from tokenworks.core.needs import task_of
from tokenworks.core.request import Conversation, Embeddings, Prompts, Request, Rerank
from tokenworks.gateway.routing.plan import Facts, default_model, plan
from tokenworks.protocols import codec
from tokenworks.snapshot.records import ModelRecord, TargetRecord, UpstreamRecord
from tokenworks.snapshot.state import State

CALLER = Caller("key", "project", "organization")
SCHEMA: dict[str, Any] = {"type": "object"}
IMAGE = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]


def planned(protocol: str, members: dict[str, Any], capabilities: tuple[str, ...], **facts: Any) -> Request:
    request = codec(protocol).decode_request(json.dumps({"model": "m", **members}).encode())
    request.model = request.model or "m"
    model = ModelRecord("m", 1, (TargetRecord("u", "m"),), capabilities=capabilities, **facts)
    upstream = UpstreamRecord("u", "local/u", ("worker",), "http://u", local=True)
    state = State.of(revision=1, keys=[], models=[model], upstreams=[upstream])
    assert [target.upstream for target in plan(request, CALLER, state, Facts())] == ["u"]
    return request


GRAMMAR = {"type": "json", "value": {"type": "object", "properties": {}}}
"""Of a text completion: an engine that follows it says so, as for chat."""


def chat(**members: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x"}], **members}


@pytest.mark.parametrize(
    ("protocol", "members", "param", "capability"),
    [
        ("openai_chat", {"messages": [{"role": "user", "content": IMAGE}]}, "messages", "vision"),
        ("openai_chat", chat(tools=[{"type": "function", "function": {"name": "f"}}]), "tools", "tools"),
        ("openai_chat", chat(response_format={"type": "json_object"}), "response_format", "json_schema"),
        ("groq_chat", chat(response_format={"type": "json_object"}), "response_format", "json_schema"),
        ("tgi_generate", {"inputs": "x", "parameters": {"grammar": GRAMMAR}}, "response_format", "json_schema"),
        ("openai_embeddings", {"input": "x"}, "model", "embeddings"),
        ("rerank", {"query": "x", "documents": ["y"]}, "model", "rerank"),
    ],
)
def test_what_a_model_cannot_do_is_refused_by_name(
    protocol: str, members: dict[str, Any], param: str, capability: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        planned(protocol, members, ("reasoning",))
    assert refused.value.param == param
    planned(protocol, members, (capability,))
    if capability not in ("embeddings", "rerank"):
        planned(protocol, members, ())  # a provider's endpoint judges for itself


@pytest.mark.parametrize(("does", "said"), [("embeddings", "make embeddings"), ("rerank", "rank documents")])
def test_a_model_that_writes_nothing_is_not_asked_to(does: str, said: str) -> None:
    for protocol, members in (("openai_chat", chat()), ("openai_completions", {"prompt": "x"})):
        with pytest.raises(InvalidRequest, match=f"does not take .*: it can only {said}") as refused:
            planned(protocol, members, (does,))
        assert refused.value.param == "model"
        planned(protocol, members, (does, "tools"))


def test_who_names_no_model_gets_one_that_can_do_it() -> None:
    able = {"embedder": ("embeddings",), "ranker": ("rerank",), "writer": ("tools",), "other": ()}
    models = [ModelRecord(name, 1, (), capabilities=does, default=name == "embedder") for name, does in able.items()]
    state = State.of(revision=1, keys=[], models=models, upstreams=[])
    found = {task: default_model(task, CALLER, state).name for task in (Conversation, Prompts, Embeddings, Rerank)}
    assert found == {Conversation: "writer", Prompts: "writer", Embeddings: "embedder", Rerank: "ranker"}
    assert [task_of(does) for does in able.values()] == [Embeddings, Rerank, Conversation, Conversation]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_maximum_beyond_the_models_is_cut_and_reported(name: str) -> None:
    request = planned("openai_chat", chat(**{name: 128_000}), ("tools",), max_output=4096)
    assert (request.max_output_tokens, request.ignored) == (4096, [name])
    request = planned("openai_chat", chat(**{name: 4096}), ("tools",), max_output=4096)
    assert (request.max_output_tokens, request.ignored) == (4096, [])


@pytest.mark.parametrize("name", ["reasoning_effort", "reasoning", "thinking"])
def test_reasoning_that_a_model_cannot_do_is_reported(name: str) -> None:
    value: Any = {"reasoning_effort": "low", "reasoning": {"enabled": True}, "thinking": {"type": "enabled"}}[name]
    assert planned("openai_chat", chat(**{name: value}), ("tools",)).ignored == [name]
    assert planned("openai_chat", chat(**{name: value}), ("tools", "reasoning")).ignored == []
