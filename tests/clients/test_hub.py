"""The official `huggingface_hub` client (2.x), chat by base URL."""

import asyncio
import json
from typing import Any

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

ASK: Any = [{"role": "user", "content": "one two three four"}]
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "description": "", "parameters": SCHEMA}}


@pytest.fixture
def client(echo_server: Any) -> InferenceClient:
    return InferenceClient(base_url=echo_server.url, api_key=echo_server.api_key, timeout=60)


def test_chat_by_base_url_needs_no_model(client: InferenceClient) -> None:
    whole = client.chat_completion(ASK)
    assert whole.choices[0].message.content == "one two three four"
    chunks = list(client.chat_completion(ASK, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three four"
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_schema_as_this_client_rewrites_it(smollm2_server: Any) -> None:
    client = InferenceClient(base_url=smollm2_server.url, api_key=smollm2_server.api_key, timeout=120)
    response_format: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    answer = client.chat.completions.create(messages=ASK, response_format=response_format, max_tokens=40)
    assert set(json.loads(answer.choices[0].message.content or "")) == {"city"}


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client: InferenceClient, stream: bool) -> None:
    choice: Any = {"function": {"name": "get_weather"}}
    if stream:
        chunks = client.chat_completion(ASK, tools=[TOOL], tool_choice=choice, stream=True)
        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
        arguments = "".join(call.function.arguments for call in calls)
    else:
        [call] = client.chat_completion(ASK, tools=[TOOL], tool_choice=choice).choices[0].message.tool_calls or []
        arguments = call.function.arguments
    assert "city" in json.loads(arguments)


def test_errors(client: InferenceClient, echo_server: Any) -> None:
    with pytest.raises(HfHubHTTPError) as unknown:
        client.chat_completion(ASK, model="nothing")
    assert unknown.value.response.status_code == 404
    broken: Any = [{"role": "user", "content": "a b c fault=cut after 2"}]
    with pytest.raises(Exception, match=r"ended|broke|cut"):
        list(client.chat_completion(broken, stream=True))


def test_the_async_client(echo_server: Any) -> None:
    async def run() -> str:
        async with AsyncInferenceClient(base_url=echo_server.url, api_key=echo_server.api_key) as client:
            stream = await client.chat_completion(ASK, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(run()) == "one two three four"
