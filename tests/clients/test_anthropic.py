"""The official `anthropic` client, unmodified, over a real socket against real workers: SmolLM2, and echo."""

import json
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

MODEL = "smollm2-135m"
ASK: list[Any] = [{"role": "user", "content": "What is 2+2?"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def client(smollm2_server: Any) -> Any:
    with Anthropic(base_url=smollm2_server.url, api_key=smollm2_server.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def echo(echo_server: Any) -> Any:
    with Anthropic(base_url=echo_server.url, api_key=echo_server.api_key, max_retries=0) as client:
        yield client


def test_a_stream_says_the_same_as_the_whole_answer(client: Anthropic) -> None:
    options: dict[str, Any] = {"model": MODEL, "messages": ASK, "max_tokens": 30, "system": "Be terse."}
    options["extra_headers"] = {"anthropic-version": "2023-06-01"}
    options["extra_body"] = {"temperature": 0}
    whole = client.messages.create(**options)
    with client.messages.stream(**options) as stream:
        text = "".join(stream.text_stream)
        streamed = stream.get_final_message()
    assert [block.text for block in whole.content if block.type == "text"] == [text]
    assert streamed.stop_reason == whole.stop_reason
    assert streamed.usage.output_tokens == whole.usage.output_tokens > 1


def test_tokens_are_counted_as_they_are_billed(client: Anthropic) -> None:
    for more in ({}, {"system": "Be terse."}, {"system": "Be terse.", "tools": [WEATHER]}):
        asked: Any = {"model": MODEL, "messages": ASK, **more}
        counted = client.messages.count_tokens(**asked)
        usage = client.messages.create(max_tokens=1, **asked).usage
        assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_a_forced_tool(client: Anthropic) -> None:
    message = client.messages.create(
        model=MODEL,
        max_tokens=100,
        messages=[{"role": "user", "content": "Weather in Rome?"}],
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
    )
    call = message.content[-1]
    assert call.type == "tool_use"
    assert (message.stop_reason, call.name) == ("tool_use", "get_weather")
    assert json.loads(json.dumps(call.input)).keys() == {"city"}


def test_the_maximum_ends_an_answer(client: Anthropic) -> None:
    message = client.messages.create(model=MODEL, max_tokens=3, messages=ASK)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 3)


@pytest.mark.parametrize("model", ["echo", MODEL])
def test_a_maximum_that_no_window_holds_is_cut_to_the_room_that_is_left(
    echo: Anthropic, client: Anthropic, model: str
) -> None:
    """Clients that do not know a model ask for 128,000."""
    short: list[Any] = [{"role": "user", "content": "Say ok."}]
    asked = echo if model == "echo" else client
    message = asked.messages.create(model=model, max_tokens=128_000, messages=short, timeout=60)
    assert message.usage.output_tokens >= 1
    long: list[Any] = [{"role": "user", "content": "hello " * 9000}]
    with pytest.raises(anthropic.BadRequestError) as refused:
        asked.messages.create(model=model, max_tokens=128_000, messages=long, timeout=60)
    assert "context" in str(refused.value)


def test_an_engine_of_ours_counts_too(echo: Anthropic) -> None:
    asked: Any = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}], "system": "Be terse."}
    usage = echo.messages.create(max_tokens=5, **asked).usage
    assert echo.messages.count_tokens(**asked).input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def test_models_and_errors(echo: Anthropic) -> None:
    assert [model.id for model in echo.models.list()] == ["echo"]
    with pytest.raises(anthropic.NotFoundError):
        echo.messages.create(model="nope", max_tokens=1, messages=ASK)
