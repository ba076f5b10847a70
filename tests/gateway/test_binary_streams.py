"""Amazon's binary event stream through a running gateway, to the official clients of two other protocols."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web
from tests.gateway.conftest import KEY, Gateway, Loop, running_gateway

SPECIMENS = Path(__file__).parents[1] / "recorded"
BEDROCK = SPECIMENS / "providers" / "bedrock"


@pytest.fixture(scope="module")
def bedrock(servers: Loop) -> Iterator[Gateway]:
    with running_gateway(servers, protocols=("bedrock_converse",)) as gateway:
        yield gateway


def plays(body: bytes, *, pieces: int = 37) -> Any:
    """Answers with these bytes, in pieces that respect no message's end."""

    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        assert request.path.endswith("/converse-stream")
        response = web.StreamResponse(headers={"content-type": "application/vnd.amazon.eventstream"})
        await response.prepare(request)
        for at in range(0, len(body), pieces):
            await response.write(body[at : at + pieces])
        return response

    return script


def test_to_an_openai_client(bedrock: Gateway) -> None:
    bedrock.upstream.script = plays((BEDROCK / "chat.stream").read_bytes())
    with openai.OpenAI(base_url=f"{bedrock.url}/v1", api_key=KEY, max_retries=0) as client:
        chunks = list(
            client.chat.completions.create(
                model="assistant",
                messages=[{"role": "user", "content": "Hi"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Bonjour — ça va ?"
        assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 16
        assert bedrock.upstream.seen[-1].path.endswith("/model/model-1/converse-stream")
        assert bedrock.upstream.seen[-1].body["messages"] == [{"role": "user", "content": [{"text": "Hi"}]}]


def test_to_an_anthropic_client_with_a_tool(bedrock: Gateway) -> None:
    bedrock.upstream.script = plays((BEDROCK / "tool_call.stream").read_bytes())
    with anthropic.Anthropic(base_url=bedrock.url, api_key=KEY, max_retries=0) as client:
        tool: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
        with client.messages.stream(
            model="assistant", max_tokens=50, messages=[{"role": "user", "content": "Hi"}], tools=[tool]
        ) as stream:
            message = stream.get_final_message()
        (block,) = message.content
        assert (block.type, message.stop_reason) == ("tool_use", "tool_use")
        assert block.type == "tool_use" and block.input == {"city": "Łódź"}
        assert (message.usage.input_tokens, message.usage.output_tokens) == (11, 5)


def test_an_exception_in_the_stream_reaches_the_client(bedrock: Gateway) -> None:
    bedrock.upstream.script = plays((SPECIMENS / "bedrock_converse" / "error.stream").read_bytes())
    with (
        openai.OpenAI(base_url=f"{bedrock.url}/v1", api_key=KEY, max_retries=0) as client,
        pytest.raises(openai.APIError, match="Too many tokens"),
    ):
        list(
            client.chat.completions.create(model="assistant", messages=[{"role": "user", "content": "Hi"}], stream=True)
        )


def test_a_damaged_message_is_never_passed_on_as_text(bedrock: Gateway) -> None:
    body = bytearray((BEDROCK / "chat.stream").read_bytes())
    body[-200] ^= 1
    bedrock.upstream.script = plays(bytes(body))
    with (
        openai.OpenAI(base_url=f"{bedrock.url}/v1", api_key=KEY, max_retries=0) as client,
        pytest.raises(openai.APIError, match="garbled"),
    ):
        list(
            client.chat.completions.create(model="assistant", messages=[{"role": "user", "content": "Hi"}], stream=True)
        )


def test_a_whole_answer(bedrock: Gateway) -> None:
    async def script(request: web.Request, seen: Any) -> web.Response:
        assert request.path.endswith("/model/model-1/converse")
        return web.json_response(json.loads((BEDROCK / "usage.response").read_bytes()))

    bedrock.upstream.script = script
    with anthropic.Anthropic(base_url=bedrock.url, api_key=KEY, max_retries=0) as client:
        message = client.messages.create(model="assistant", max_tokens=5, messages=[{"role": "user", "content": "Hi"}])
        thought, text = message.content
        assert thought.type == "thinking" and (thought.thinking, thought.signature) == ("Hm.", "c2ln")
        assert text.type == "text" and text.text == "Bonjour — ça va ?"
        assert message.usage.cache_read_input_tokens == 6
