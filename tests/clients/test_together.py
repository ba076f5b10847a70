"""The official `together` client, unmodified but for its base URL. It shares OpenAI's paths."""

import asyncio
import json
from typing import Any

import pytest
import together
from together import AsyncTogether, Together

ASK: Any = [{"role": "user", "content": "one two three four"}]


@pytest.fixture
def client(echo_server: Any) -> Any:
    with Together(base_url=echo_server.url, api_key=echo_server.api_key, max_retries=0) as client:
        yield client


def test_a_real_answer_with_togethers_parameters(smollm2_server: Any) -> None:
    with Together(base_url=smollm2_server.url, api_key=smollm2_server.api_key) as client:
        answer = client.chat.completions.with_raw_response.create(
            model="smollm2-135m",
            messages=ASK,
            max_tokens=6,
            top_k=5,
            min_p=0.05,
            repetition_penalty=1.1,
            temperature=0.5,
            seed=3,
            logprobs=2,
            context_length_exceeded_behavior="truncate",
            reasoning={"enabled": False},
            chat_template_kwargs={"custom": 1},
        )
    told = answer.json() if callable(getattr(answer, "json", None)) else json.loads(answer.text())
    [token, *_] = told["choices"][0]["logprobs"]["content"]
    assert len(token["top_logprobs"]) == 2
    assert told["usage"]["completion_tokens"] <= 6
    assert answer.headers["x-tokenworks-ignored"] == "reasoning"


def test_a_stream_loses_no_chunk(client: Together) -> None:
    chunks = list(client.chat.completions.create(model="echo", messages=ASK, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole = client.chat.completions.create(model="echo", messages=ASK)
    assert text == whole.choices[0].message.content == "one two three four"
    texts = client.completions.create(model="echo", prompt="one two", max_tokens=2, stream=True)
    assert "".join(chunk.choices[0].text or "" for chunk in texts if chunk.choices) == "one two"


def test_tools_and_structured_output(client: Together) -> None:
    parameters: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    answer = client.chat.completions.create(
        model="echo",
        messages=ASK,
        tools=[{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}],
        tool_choice={"type": "function", "function": {"name": "get_weather"}, "id": "a", "index": 0},  # type: ignore[typeddict-item]
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert "city" in json.loads(call.function.arguments)
    for response_format in (
        {"type": "json_object", "schema": parameters},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": parameters}},
    ):
        formatted = client.chat.completions.create(
            model="echo",
            messages=ASK,
            response_format=response_format,  # type: ignore[arg-type]
        )
        assert "city" in json.loads(formatted.choices[0].message.content or "")


def test_promises_that_cannot_be_kept_are_refused(client: Together) -> None:
    with pytest.raises(together.BadRequestError, match="compliance"):
        client.chat.completions.create(model="echo", messages=ASK, compliance="hipaa")
    with pytest.raises(together.BadRequestError, match="safety_model"):
        client.chat.completions.create(model="echo", messages=ASK, safety_model="guard")


def test_embeddings_and_rerank(client: Together) -> None:
    assert len(client.embeddings.create(model="echo", input=["a", "b"]).data) == 2
    ranked = client.rerank.create(model="echo", query="capital", documents=["a dog", "capital"], top_n=1)
    assert [result.index for result in ranked.results] == [1]


def test_errors_before_and_in_a_stream(client: Together, echo_server: Any) -> None:
    with pytest.raises(together.NotFoundError):
        client.chat.completions.create(model="nothing", messages=ASK)
    with Together(base_url=echo_server.url, api_key="wrong") as stranger, pytest.raises(together.AuthenticationError):
        stranger.chat.completions.create(model="echo", messages=ASK)
    broken: Any = [{"role": "user", "content": "a b c fault=cut after 2"}]
    with pytest.raises(together.APIError):
        list(client.chat.completions.create(model="echo", messages=broken, stream=True))


def test_the_async_client(echo_server: Any) -> None:
    async def run() -> str:
        async with AsyncTogether(base_url=echo_server.url, api_key=echo_server.api_key) as client:
            stream = await client.chat.completions.create(model="echo", messages=ASK, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    assert asyncio.run(run()) == "one two three four"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_longer_than_the_room_is_refused_or_cut(client: Together, stream: bool) -> None:
    asked: Any = {"model": "echo", "messages": [{"role": "user", "content": "one two"}], "max_tokens": 100_000}
    with pytest.raises(together.BadRequestError, match="maximum context length"):
        client.chat.completions.create(**asked, context_length_exceeded_behavior="error")
    told = client.chat.completions.with_raw_response.create(
        **asked, context_length_exceeded_behavior="truncate", stream=stream
    )
    assert "context_length" not in told.headers.get("x-tokenworks-ignored", "")
    if not stream:
        assert told.parse().choices[0].message.content == "one two"
