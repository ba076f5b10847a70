"""What a neutral request says arrives at the worker whole."""

from typing import Any

import msgspec
import pytest

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import (
    Image,
    Message,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
)
from tokenworks.core.request import Conversation, Prompts, Reasoning, Request, ResponseFormat, Sampling
from tokenworks.protocols import codec
from tokenworks.protocols.worker import types as wire

CODEC = codec("worker")


def sent(request: Request) -> wire.GenerateRequest:
    return msgspec.json.decode(CODEC.encode_request(request, "upstream-name", stream=True), type=wire.GenerateRequest)


def test_a_conversation() -> None:
    task = Conversation(
        messages=[
            Message(Role.SYSTEM, [Text("be "), Text("brief")]),
            Message(Role.USER, [Text("weather?")], name="ann"),
            Message(
                Role.ASSISTANT, [Thinking("hm"), Text("ok"), ToolCall("c1", "get", "{}"), ToolCall("c2", "get", "[]")]
            ),
            Message(Role.TOOL, [ToolResult("c1", [Text("sun")]), ToolResult("c2", [Text("rain")])]),
        ],
        tools=[Tool("get", "gets", {"type": "object"})],
        tool_choice=ToolChoice(ToolMode.REQUIRED, "get"),
    )
    schema = {"type": "object"}
    request = Request(
        "public", task, "openai_chat", response_format=ResponseFormat(schema), n=2, logprobs=True, top_logprobs=3,
        max_output_tokens=9,
    )  # fmt: skip
    assert sent(request) == wire.GenerateRequest(
        model="upstream-name",
        messages=(
            wire.Message("system", "be brief"),
            wire.Message("user", "weather?", name="ann"),
            wire.Message(
                "assistant", "ok", reasoning="hm", calls=(wire.Call("c1", "get", "{}"), wire.Call("c2", "get", "[]"))
            ),
            wire.Message("tool", "sun", call_id="c1"),
            wire.Message("tool", "rain", call_id="c2"),
        ),
        tools=(wire.Tool("get", "gets", {"type": "object"}),),
        tool_choice="required",
        forced_tool="get",
        json=True,
        json_schema=schema,
        max_tokens=9,
        n=2,
        logprobs=3,
    )


def test_prompts_and_every_knob() -> None:
    knobs: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "typical_p": 0.7, "seed": 7}
    knobs |= {"frequency_penalty": 0.2, "presence_penalty": 0.3, "repetition_penalty": 1.1, "logit_bias": {"5": -1.0}}
    knobs |= {"ignore_eos": True, "min_tokens": 3}
    assert {*knobs, "stop"} == set(Sampling.__dataclass_fields__)
    sampling = Sampling(**knobs, stop=["END"])
    request = Request("public", Prompts(["a", [1, 2]], echo=True), "openai_completions", sampling=sampling)
    assert sent(request) == wire.GenerateRequest(
        model="upstream-name",
        prompts=("a", [1, 2]),
        sampling=wire.Sampling(**knobs, stop=("END",)),
        echo=True,
    )


def test_what_it_cannot_carry_is_refused() -> None:
    image = Conversation([Message(Role.USER, [Image(url="http://x/y.png")])])
    for task, param in ((image, "messages"), (Prompts(["a"], suffix="b"), "suffix")):
        with pytest.raises(InvalidRequest) as raised:
            sent(Request("public", task, "openai_chat"))
        assert raised.value.param == param


@pytest.mark.parametrize(
    ("reasoning", "thinking", "arguments"),
    [
        (None, None, {"k": 1}),
        (Reasoning(effort="high"), True, {"reasoning_effort": "high", "k": 1}),
        (Reasoning(effort="none"), False, {"reasoning_effort": "none", "k": 1}),
        (Reasoning(enabled=False), False, {"k": 1}),
        (Reasoning(budget_tokens=2000, enabled=True), True, {"k": 1}),
    ],
)
def test_how_to_reason_and_what_the_template_is_told(
    reasoning: Reasoning | None, thinking: bool | None, arguments: dict[str, object]
) -> None:
    task = Conversation([Message(Role.USER, [Text("x")])], parallel_tool_calls=False)
    request = Request("m", task, "openai_chat", reasoning=reasoning, options={"chat_template_kwargs": b'{"k":1}'})
    wired = sent(request)
    assert (wired.thinking, wired.template_arguments, wired.parallel_tool_calls) == (thinking, arguments, False)


def test_template_arguments_that_are_no_object_are_refused_by_name() -> None:
    task = Conversation([Message(Role.USER, [Text("x")])])
    with pytest.raises(InvalidRequest) as refused:
        sent(Request("m", task, "openai_chat", options={"chat_template_kwargs": b"[1]"}))
    assert refused.value.param == "chat_template_kwargs"


def test_whose_request_it_is_and_how_urgent() -> None:
    def asked(**more: Any) -> tuple[str, str]:
        found = sent(Request("public", Prompts(["a"]), "openai_chat", tenant="project", **more))
        return found.tenant, found.priority

    assert asked() == ("project", "standard")
    assert asked(service_tier="auto") == ("project", "standard")
    assert asked(service_tier="priority") == ("project", "interactive")
    assert asked(service_tier="flex") == ("project", "batch")
    assert asked(service_tier="priority", batch=True) == ("project", "batch")


@pytest.mark.parametrize(("said", "truncate"), [(b'"truncate"', True), (b'"error"', False), (None, False)])
def test_what_is_done_when_there_is_not_enough_room(said: bytes | None, truncate: bool) -> None:
    options = {} if said is None else {"context_length_exceeded_behavior": said}
    task = Conversation([Message(Role.USER, [Text("x")])])
    assert sent(Request("m", task, "openai_chat", options=options)).truncate == truncate
