"""The official `fireworks-ai` client, unmodified but for its base URL: with one, it uses /v1 below it."""

import asyncio
import json
from typing import Any

import fireworks
import pytest
from fireworks import AsyncFireworks, Fireworks

ASK: Any = [{"role": "user", "content": "one two three four"}]
MEASURED = {"prompt-tokens", "cached-prompt-tokens", "server-time-to-first-token", "server-processing-time"}


@pytest.fixture(params=["", "/inference"])
def client(echo_server: Any, request: pytest.FixtureRequest) -> Any:
    url = echo_server.url + request.param
    with Fireworks(base_url=url, api_key=echo_server.api_key, max_retries=0) as client:
        yield client


def test_a_real_answer_is_measured(smollm2_server: Any) -> None:
    url = f"{smollm2_server.url}/inference"
    with Fireworks(base_url=url, api_key=smollm2_server.api_key) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="accounts/fireworks/models/smollm2-135m",
            messages=ASK,
            max_tokens=6,
            temperature=0,
            perf_metrics_in_response=True,
        )
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.perf_metrics
    assert set(answer.perf_metrics) == MEASURED
    assert float(str(answer.perf_metrics["server-processing-time"])) > 0
    assert int(raw.headers["fireworks-prompt-tokens"]) > 0
    assert "x-tokenworks-ignored" not in raw.headers


def test_chat_streams_with_measurements_in_the_last_chunk(client: Fireworks) -> None:
    chunks = list(
        client.chat.completions.create(model="echo", messages=ASK, stream=True, perf_metrics_in_response=True)
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three four"
    assert [bool(chunk.perf_metrics) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].choices[0].finish_reason == "stop"
    plain = list(client.chat.completions.create(model="echo", messages=ASK, stream=True))
    assert not any(chunk.perf_metrics for chunk in plain)


def test_completions(client: Fireworks) -> None:
    answer = client.completions.create(model="echo", prompt="one two", max_tokens=2, perf_metrics_in_response=True)
    assert answer.choices[0].text == "one two"
    assert answer.perf_metrics
    assert set(answer.perf_metrics) == MEASURED
    chunks = list(client.completions.create(model="echo", prompt="one two", stream=True, perf_metrics_in_response=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices).startswith("one two")
    assert chunks[-1].perf_metrics


def test_tools_and_structured_output(client: Fireworks) -> None:
    parameters: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    answer = client.chat.completions.create(
        model="echo",
        messages=ASK,
        tools=[{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}],
        tool_choice="any",
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert call.function
    assert "city" in json.loads(call.function.arguments or "")
    formatted = client.chat.completions.create(
        model="echo", messages=ASK, response_format={"type": "json_object", "schema": parameters}
    )
    assert "city" in json.loads(str(formatted.choices[0].message.content))
    with pytest.raises(fireworks.BadRequestError, match="response_format"):
        client.chat.completions.create(
            model="echo", messages=ASK, response_format={"type": "grammar", "grammar": "root ::= [0-9]"}
        )


def test_what_has_no_effect_is_reported(client: Fireworks) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="echo",
        messages=ASK,
        raw_output=True,
        mirostat_lr=0.1,
        prompt_cache_key="a",
        service_tier="priority",
        context_length_exceeded_behavior="error",
    )
    assert raw.headers["x-tokenworks-ignored"] == "mirostat_lr,prompt_cache_key,raw_output,service_tier"


def test_errors(client: Fireworks) -> None:
    with pytest.raises(fireworks.NotFoundError):
        client.chat.completions.create(model="nothing", messages=ASK)
    broken: Any = [{"role": "user", "content": "a b c fault=cut after 2"}]
    # This client hands a stream's error on as a chunk (measured); it must at least never look complete.
    chunks = list(client.chat.completions.create(model="echo", messages=broken, stream=True))
    assert not any(chunk.choices and chunk.choices[0].finish_reason for chunk in chunks if chunk.choices)


def test_the_async_client(echo_server: Any) -> None:
    async def run() -> str:
        async with AsyncFireworks(base_url=echo_server.url, api_key=echo_server.api_key) as client:
            stream = await client.chat.completions.create(model="echo", messages=ASK, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    assert asyncio.run(run()) == "one two three four"


def test_messages(client: Fireworks) -> None:
    answer = client.messages.create(model="echo", messages=ASK, max_tokens=20)
    assert [block.text for block in answer.content if block.type == "text"] == ["one two three four"]
    assert answer.stop_reason == "end_turn"
    # This client does not read streams of messages: it gives their text.
    stream = str(client.messages.create(model="echo", messages=ASK, max_tokens=20, stream=True))
    assert stream.startswith("event: message_start\n")
    assert "event: message_stop\n" in stream
