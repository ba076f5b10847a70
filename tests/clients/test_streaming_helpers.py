"""What the official clients put on top of a stream: accumulators, parsers, runners of tools, raw bytes.

The plain streams are in the module of each client."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from anthropic import Anthropic, AsyncAnthropic, beta_tool
from fireworks import Fireworks
from groq import Groq
from huggingface_hub import AsyncInferenceClient
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from together import Together

ASK: Any = [{"role": "user", "content": "one two three"}]
SAID = "one two three"
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


class City(BaseModel):
    city: str


@pytest.fixture
def openai(echo_server: Any) -> Any:
    with OpenAI(base_url=f"{echo_server.url}/v1", api_key=echo_server.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic(echo_server: Any) -> Any:
    with Anthropic(base_url=echo_server.url, api_key=echo_server.api_key, max_retries=0) as client:
        yield client


def test_chat_is_parsed_while_it_streams(openai: OpenAI) -> None:
    with openai.chat.completions.stream(model="echo", messages=ASK, response_format=City) as stream:
        kinds = [event.type for event in stream]
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert isinstance(parsed, City)
    assert kinds[-1] == "content.done"


def test_arguments_of_tools_are_told_as_they_come(openai: OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "look", "parameters": SCHEMA, "strict": True}}]
    with openai.chat.completions.stream(model="echo", messages=ASK, tools=tools, tool_choice="required") as stream:
        [done] = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert "city" in json.loads(done.arguments)


def test_responses_are_parsed_while_they_stream(openai: OpenAI) -> None:
    with openai.responses.stream(model="echo", input="x", text_format=City) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, City)
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert isinstance(openai.responses.parse(model="echo", input="x", text_format=City).output_parsed, City)


def test_the_asynchronous_helpers_of_openai(echo_server: Any) -> None:
    async def run() -> tuple[str, str, str]:
        async with AsyncOpenAI(base_url=f"{echo_server.url}/v1", api_key=echo_server.api_key) as client:
            async with client.chat.completions.stream(model="echo", messages=ASK) as stream:
                text = "".join([event.delta async for event in stream if event.type == "content.delta"])
                final = await stream.get_final_completion()
            async with client.responses.stream(model="echo", input=SAID) as events:
                response = await events.get_final_response()
            return text, str(final.choices[0].message.content), response.output_text

    assert set(asyncio.run(run())) == {SAID}


def test_messages_are_accumulated_event_by_event(anthropic: Anthropic) -> None:
    with anthropic.messages.stream(model="echo", max_tokens=50, messages=ASK) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "text"]
        stopped = [event for event in stream if event.type == "message_stop"]
        assert stream.get_final_text() == snapshots[-1] == SAID
    assert not stopped, "all events were seen by the first loop"
    tools: Any = [{"name": "look", "input_schema": SCHEMA}]
    options: Any = {"model": "echo", "max_tokens": 50, "messages": ASK, "tools": tools, "tool_choice": {"type": "any"}}
    with anthropic.messages.stream(**options) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    assert json.loads("".join(pieces)) == final.content[-1].input  # type: ignore[union-attr]


def test_messages_are_parsed(anthropic: Anthropic) -> None:
    parsed = anthropic.messages.parse(model="echo", max_tokens=50, messages=ASK, output_format=City)
    assert isinstance(parsed.parsed_output, City)
    with anthropic.messages.stream(model="echo", max_tokens=50, messages=ASK, output_format=City) as stream:
        assert isinstance(stream.get_final_message().parsed_output, City)


@pytest.mark.parametrize("stream", [False, True])
def test_the_runner_of_tools(anthropic: Anthropic, stream: bool) -> None:
    called = []

    @beta_tool
    def look(city: str) -> str:
        """Look at a city.

        Args:
            city: Which one.
        """
        called.append(city)
        return "sunny"

    options: Any = {"model": "echo", "max_tokens": 50, "messages": ASK, "tools": [look], "max_iterations": 2}
    runner = anthropic.beta.messages.tool_runner(**options, stream=stream, tool_choice={"type": "any"})
    turns = [turn.get_final_message() if stream else turn for turn in runner]  # type: ignore[union-attr]
    assert [turn.stop_reason for turn in turns] == ["tool_use", "tool_use"]
    assert called


def test_the_asynchronous_helpers_of_anthropic(echo_server: Any) -> None:
    async def run() -> tuple[str, str]:
        async with (
            AsyncAnthropic(base_url=echo_server.url, api_key=echo_server.api_key) as client,
            client.messages.stream(model="echo", max_tokens=50, messages=ASK) as stream,
        ):
            return "".join([piece async for piece in stream.text_stream]), await stream.get_final_text()

    assert asyncio.run(run()) == (SAID, SAID)


def test_text_generation_streams_asynchronously(echo_server: Any) -> None:
    async def run() -> str:
        async with AsyncInferenceClient(base_url=echo_server.url, api_key=echo_server.api_key) as client:
            return "".join([piece async for piece in await client.text_generation(SAID, stream=True)])

    assert asyncio.run(run()) == SAID


CLIENTS: dict[str, Callable[[str, str], Any]] = {
    "openai": lambda url, key: OpenAI(base_url=f"{url}/v1", api_key=key),
    "groq": lambda url, key: Groq(base_url=url, api_key=key),
    "together": lambda url, key: Together(base_url=url, api_key=key),
    "fireworks": lambda url, key: Fireworks(base_url=f"{url}/inference", api_key=key),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_raw_streams_end_with_their_terminator(echo_server: Any, name: str) -> None:
    with (
        CLIENTS[name](echo_server.url, echo_server.api_key) as client,
        client.chat.completions.with_streaming_response.create(model="echo", messages=ASK, stream=True) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith(("data: ", ": ")) for line in lines)
