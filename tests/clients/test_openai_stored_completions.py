"""Chat completions with `store: true`, kept and read again, with the official `openai` client."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

ASK: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "one two three"}]},
]


@pytest.fixture
def client(patient_server: Any) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{patient_server.url}/v1", api_key=patient_server.api_key, max_retries=0) as client:
        yield client


def test_a_completion_is_stored_and_read_again(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="echo", messages=ASK, store=True, metadata={"job": "a"}
    )
    made = raw.parse()
    assert "x-tokenworks-ignored" not in raw.headers
    found = client.chat.completions.retrieve(made.id)
    assert found.to_dict() == made.to_dict() | {"metadata": {"job": "a"}}
    assert found.choices[0].message.content == "one two three"


@pytest.mark.parametrize("usage", [False, True])
def test_a_stream_is_stored_whole(client: OpenAI, usage: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if usage else {}
    chunks = list(client.chat.completions.create(model="echo", messages=ASK, store=True, stream=True, **options))
    found = client.chat.completions.retrieve(chunks[0].id)
    assert (found.object, found.created) == ("chat.completion", chunks[0].created)
    assert found.choices[0].message.content == "one two three"
    assert found.choices[0].finish_reason == "stop"
    assert (found.usage and found.usage.total_tokens) == (chunks[-1].usage and chunks[-1].usage.total_tokens)
    assert bool(found.usage) == usage


def test_calls_of_tools_are_stored(client: OpenAI) -> None:
    parameters: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tools: Any = [{"type": "function", "function": {"name": "look", "parameters": parameters}}]
    with client.chat.completions.stream(
        model="echo", messages=ASK, store=True, tools=tools, tool_choice="required"
    ) as stream:
        made: Any = stream.get_final_completion()
    found: Any = client.chat.completions.retrieve(made.id)
    [call], [told] = found.choices[0].message.tool_calls, made.choices[0].message.tool_calls
    assert (call.id, call.function.name) == (told.id, "look")
    assert call.function.arguments == told.function.arguments
    assert "city" in json.loads(call.function.arguments)


def test_nothing_is_stored_unasked_or_broken(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(client.chat.completions.create(model="echo", messages=ASK).id)
    broken: Any = [{"role": "user", "content": "a b c fault=cut after 2"}]
    stream = client.chat.completions.create(model="slow", messages=broken, store=True, stream=True)
    first = next(iter(stream))
    with pytest.raises(openai.APIError):
        list(stream)
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.retrieve(first.id)
    assert refused.value.param == "id"


def test_the_list_is_narrowed_and_paged(client: OpenAI) -> None:
    def make(model: str, job: str) -> str:
        options: Any = {"messages": ASK, "store": True, "metadata": {"job": job, "kind": "list"}}
        return client.chat.completions.create(model=model, **options).id

    made = [make("echo", str(number % 2)) for number in range(5)]
    other = make("slow", "0")
    mine: Any = {"kind": "list"}
    assert [each.id for each in client.chat.completions.list(metadata=mine, limit=2)] == [*made, other]
    newest = client.chat.completions.list(metadata=mine, order="desc", limit=3)
    assert ([each.id for each in newest.data], newest.has_more) == ([other, made[4], made[3]], True)
    assert [each.id for each in client.chat.completions.list(metadata={"job": "0", **mine}, model="echo")] == made[::2]
    assert [each.id for each in client.chat.completions.list(metadata=mine, model="slow")] == [other]
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.list(limit=101)


def test_its_messages_its_metadata_and_its_end(client: OpenAI, patient_server: Any, strangers_key: str) -> None:
    made = client.chat.completions.create(model="echo", messages=ASK, store=True)
    system, user = client.chat.completions.messages.list(made.id, limit=1)
    assert (system.id, system.role, system.content) == (f"{made.id}-0", "system", "Be brief.")
    assert (user.content, [part.type for part in user.content_parts or []]) == ("one two three", ["text"])
    assert [each.id for each in client.chat.completions.messages.list(made.id, order="desc")] == [user.id, system.id]
    changed = client.chat.completions.update(made.id, metadata={"seen": "yes"})
    assert changed.to_dict()["metadata"] == {"seen": "yes"}
    assert client.chat.completions.retrieve(made.id).to_dict() == changed.to_dict()
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.update(made.id, metadata={"x": "y" * 513})
    assert refused.value.param == "metadata"
    with OpenAI(base_url=f"{patient_server.url}/v1", api_key=strangers_key, max_retries=0) as stranger:
        assert list(stranger.chat.completions.list()) == []
        for attempt in (stranger.chat.completions.retrieve, stranger.chat.completions.delete):
            with pytest.raises(openai.NotFoundError):
                attempt(made.id)
    deleted = client.chat.completions.delete(made.id)
    assert (deleted.deleted, deleted.object) == (True, "chat.completion.deleted")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(made.id)
