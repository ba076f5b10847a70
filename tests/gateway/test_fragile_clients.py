"""What makes official clients fail or lie (measured), sent by an upstream: no caller of ours ever sees it."""

from collections.abc import Iterator
from typing import Any

import fireworks
import groq
import openai
import pytest
import together
from aiohttp import web
from huggingface_hub import InferenceClient

KEY = "sk-tw-test-key"
HELLO: Any = [{"role": "user", "content": "Say hello"}]
HEAD = '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m"'
TEXT = HEAD + ',"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}'
END = HEAD + ',"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
CHUNKS = [TEXT % "Hel", TEXT % "lo", END]
DRESSES = {
    "ids and comments": "".join(f"id: 1\ndata: {chunk}\n\n: ping\n\n" for chunk in CHUNKS),
    "pings without data": "".join(f"event: ping\n\ndata: {chunk}\n\n" for chunk in CHUNKS),
    "named events": "".join(f"event: chunk\ndata: {chunk}\n\n" for chunk in CHUNKS),
    "retry and no space": "retry: 10\n\n" + "".join(f"data:{chunk}\n\n" for chunk in [*CHUNKS, "[DONE]"]),
}


def openai_texts(gateway: Any) -> Iterator[str | None]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        chunks = client.chat.completions.create(model="assistant", messages=HELLO, stream=True)
        yield from [choice.delta.content for chunk in chunks for choice in chunk.choices]


def together_texts(gateway: Any) -> Iterator[str | None]:
    with together.Together(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
        chunks = client.chat.completions.create(model="assistant", messages=HELLO, stream=True)
        yield from [choice.delta.content for chunk in chunks for choice in chunk.choices]


def groq_texts(gateway: Any) -> Iterator[str | None]:
    with groq.Groq(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
        chunks = client.chat.completions.create(model="assistant", messages=HELLO, stream=True)
        yield from [choice.delta.content for chunk in chunks for choice in chunk.choices]


def fireworks_texts(gateway: Any) -> Iterator[str | None]:
    with fireworks.Fireworks(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
        chunks = client.chat.completions.create(model="assistant", messages=HELLO, stream=True)
        yield from [choice.delta.content for chunk in chunks for choice in chunk.choices]


def hub_texts(gateway: Any) -> Iterator[str | None]:
    with InferenceClient(base_url=gateway.url, api_key=KEY, timeout=20) as client:
        chunks = client.chat_completion(HELLO, model="assistant", stream=True)
        yield from [choice.delta.content for chunk in chunks for choice in chunk.choices]


CLIENTS = {
    "openai": openai_texts,
    "together": together_texts,
    "groq": groq_texts,
    "fireworks": fireworks_texts,
    "hub": hub_texts,
}


def saying(text: str) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        return web.Response(body=text.encode(), headers={"content-type": "text/event-stream"})

    return script


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("dress", DRESSES)
def test_no_dress_of_an_upstreams_stream_breaks_a_client(gateway: Any, client: str, dress: str) -> None:
    gateway.upstream.script = saying(DRESSES[dress])
    assert "".join(text or "" for text in CLIENTS[client](gateway)) == "Hello"


@pytest.mark.parametrize("dressed", ["data: %s\n\n", "event: error\ndata: %s\n\n"])
@pytest.mark.parametrize("client", ["openai", "together", "groq", "hub"])
def test_an_error_in_the_middle_is_seen(gateway: Any, client: str, dressed: str) -> None:
    error = '{"error":{"message":"the host broke","type":"server_error"}}'
    gateway.upstream.script = saying(f"data: {TEXT % 'Hel'}\n\n" + dressed % error)
    with pytest.raises(Exception, match="the host broke"):
        list(CLIENTS[client](gateway))


def answering(statuses: list[int], **headers: str) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        status = statuses.pop(0)
        if status != 200:
            return web.json_response({"error": {"message": "no"}}, status=status, headers=headers)
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
        return web.json_response({**head, "choices": [choice], "usage": usage})

    return script


def test_clients_come_back_after_a_busy_moment_but_not_for_a_quota(gateway: Any) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=2) as client:
        gateway.upstream.script = answering([429, 200], **{"retry-after": "0"})
        answer = client.chat.completions.create(model="assistant", messages=HELLO)
        assert answer.choices[0].message.content == "Hello"
        assert len(gateway.upstream.seen) == 2
        gateway.upstream.seen.clear()
        gateway.upstream.script = answering([402, 200])
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="assistant", messages=HELLO)
        assert len(gateway.upstream.seen) == 1
