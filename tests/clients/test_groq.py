"""The official `groq` client, unmodified but for its base URL."""

import asyncio
import json
from typing import Any

import groq
import pytest
from groq import AsyncGroq, Groq

ASK: Any = [{"role": "user", "content": "What is 2+2?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(echo_server: Any) -> Any:
    with Groq(base_url=echo_server.url, api_key=echo_server.api_key, max_retries=0) as client:
        yield client


def test_a_real_answer_is_measured(smollm2_server: Any) -> None:
    with Groq(base_url=smollm2_server.url, api_key=smollm2_server.api_key) as client:
        answer = client.chat.completions.create(
            model="smollm2-135m", messages=ASK, max_completion_tokens=12, temperature=0, service_tier="auto"
        )
    assert answer.choices[0].message.content
    assert answer.service_tier == "on_demand"
    assert answer.x_groq
    assert answer.x_groq.id.startswith("req_")
    usage = answer.usage
    assert usage
    assert usage.queue_time is not None
    assert usage.prompt_time
    assert usage.completion_time
    assert usage.total_time == pytest.approx(usage.prompt_time + usage.completion_time)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_stream_begins_and_ends_with_groqs_own_words(client: Groq) -> None:
    chunks = list(client.chat.completions.create(model="echo", messages=ASK, seed=7, stream=True))
    first, last = chunks[0], chunks[-1]
    assert first.x_groq
    assert last.x_groq
    assert first.x_groq.id == last.x_groq.id
    assert last.x_groq.seed == 7
    assert last.x_groq.usage
    assert last.x_groq.usage.total_time
    assert last.choices[0].finish_reason == "stop"
    assert all(chunk.x_groq is None for chunk in chunks[1:-1])
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks[:-1])
    whole = client.chat.completions.create(model="echo", messages=ASK, seed=7)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client: Groq, stream: bool) -> None:
    options: Any = {"model": "echo", "messages": ASK, "tools": [WEATHER], "tool_choice": "required"}
    if stream:
        deltas = [
            call
            for chunk in client.chat.completions.create(stream=True, **options)
            for call in chunk.choices[0].delta.tool_calls or []
        ]
        assert deltas[0].function
        assert deltas[0].function.name == "get_weather"
        arguments = "".join(call.function.arguments or "" for call in deltas if call.function)
    else:
        [call] = client.chat.completions.create(**options).choices[0].message.tool_calls or []
        arguments = call.function.arguments
    assert "city" in json.loads(arguments)


def test_structured_output(client: Groq) -> None:
    schema: Any = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    answer = client.chat.completions.create(
        model="echo",
        messages=ASK,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    )
    assert isinstance(json.loads(answer.choices[0].message.content or "")["a"], int)


def test_what_has_no_effect_is_reported_or_refused(client: Groq) -> None:
    options: Any = {"model": "echo", "messages": ASK, "disable_tool_validation": True, "service_tier": "flex"}
    answer = client.chat.completions.with_raw_response.create(**options)
    assert answer.headers["x-tokenworks-ignored"] == "disable_tool_validation,service_tier"
    assert answer.parse().service_tier == "on_demand"
    with pytest.raises(groq.BadRequestError) as refused:
        client.chat.completions.create(extra_headers={"x-tokenworks-strict": "true"}, **options)
    assert refused.value.body == {
        "error": {
            "message": "'disable_tool_validation' has no effect here.",
            "type": "invalid_request_error",
            "param": "disable_tool_validation",
            "code": "unsupported_parameter",
        }
    }
    with pytest.raises(groq.BadRequestError, match="documents"):
        client.chat.completions.create(
            model="echo", messages=ASK, documents=[{"source": {"type": "text", "text": "a"}}]
        )


def test_errors(client: Groq, echo_server: Any) -> None:
    with pytest.raises(groq.NotFoundError) as unknown:
        client.chat.completions.create(model="nothing", messages=ASK)
    assert set(unknown.value.body["error"]) >= {"message", "type", "code"}  # type: ignore[index]
    with Groq(base_url=echo_server.url, api_key="wrong") as stranger, pytest.raises(groq.AuthenticationError):
        stranger.models.list()
    broken: Any = [{"role": "user", "content": "a b c fault=cut after 2"}]
    with pytest.raises(groq.APIError):
        list(client.chat.completions.create(model="echo", messages=broken, stream=True))


def test_models_and_embeddings(client: Groq) -> None:
    assert "echo" in [model.id for model in client.models.list().data]
    assert client.models.retrieve("echo").id == "echo"
    assert len(client.embeddings.create(model="echo", input="a").data) == 1


def test_many_at_once(echo_server: Any) -> None:
    async def run() -> list[Any]:
        async with AsyncGroq(base_url=echo_server.url, api_key=echo_server.api_key) as client:
            return await asyncio.gather(
                *[client.chat.completions.create(model="echo", messages=ASK, user=str(n)) for n in range(8)]
            )

    assert all(answer.usage.total_time is not None for answer in asyncio.run(run()))
