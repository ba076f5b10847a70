"""The cases of the Open Responses compliance suite, each answer and event read by the specification's own schemas.

The suite asks any model and hopes that it calls the tool; here the tool is forced. Its case with an image needs a model
that sees."""

import json
from enum import Enum
from typing import Any, get_args

import httpx
import pytest
from openresponses_types import types as spec
from pydantic import BaseModel

SEEN = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"type": "message", "role": role, "content": text}


CASES: dict[str, dict[str, Any]] = {
    "basic": {"input": [said("Say hello in exactly 3 words.")]},
    "system prompt": {"input": [said("You are a pirate.", "system"), said("Say hello.")]},
    "multi-turn": {
        "input": [said("My name is Alice."), said("Hello Alice!", "assistant"), said("What is my name?")],
    },
    "tool calling": {"input": [said("The weather in Rome?")], "tools": [SEEN], "tool_choice": "required"},
    "conversation with a tool": {
        "input": [
            said("The weather in Rome?"),
            {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": '{"location":"Rome"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        ],
        "tools": [SEEN],
    },
    "cut off": {"input": [said("Count from 1 to 50.")], "max_output_tokens": 2},
}


def kinds(event: type[BaseModel]) -> set[str]:
    """The values that an event's `type` may have."""
    kind: Any = event.model_fields["type"].annotation
    values = kind if isinstance(kind, type) and issubclass(kind, Enum) else get_args(kind)
    return {str(getattr(value, "value", value)) for value in values}


EVENTS = {
    kind: model
    for name, model in vars(spec).items()
    if isinstance(model, type) and issubclass(model, BaseModel) and name.endswith("StreamingEvent")
    for kind in kinds(model)
}


def require_every_member(model: type[BaseModel], body: dict[str, Any]) -> None:
    """What a schema requires must be there although it may be null."""
    model.model_validate(body)
    required = {field.alias or name for name, field in model.model_fields.items() if field.is_required()}
    assert required <= body.keys(), required - body.keys()


@pytest.mark.parametrize("server", ["echo_server", "smollm2_server"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_case(case: str, stream: bool, server: str, request: pytest.FixtureRequest) -> None:
    served = request.getfixturevalue(server)
    body = {"model": served.models[0], "max_output_tokens": 40, **CASES[case], "stream": stream}
    headers = {"authorization": f"Bearer {served.api_key}"}
    answer = httpx.post(f"{served.url}/v1/responses", json=body, headers=headers, timeout=120)
    assert answer.status_code == 200, answer.text
    if stream:
        events = [spec_event(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        told, response = {event["type"] for event in events}, events[-1]["response"]
        if "tool_choice" in body:
            done = {"response.function_call_arguments.delta", "response.function_call_arguments.done"}
            assert done | {"response.output_item.added", "response.output_item.done"} <= told
    else:
        response = answer.json()
    require_every_member(spec.ResponseResource, response)
    assert response["output"]
    if "tool_choice" in body:
        assert response["output"][-1]["type"] == "function_call"
    if case == "cut off":
        assert (response["status"], response["incomplete_details"]["reason"]) == ("incomplete", "max_output_tokens")
    elif server == "echo_server":
        assert response["status"] == "completed"


def spec_event(text: str) -> dict[str, Any]:
    """A stream's event, which is one that the specification knows."""
    event: dict[str, Any] = json.loads(text)
    require_every_member(EVENTS[event["type"]], event)
    return event
