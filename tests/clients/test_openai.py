"""The official `openai` client, unmodified, over a real socket against a real worker with SmolLM2."""

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

MODEL = "smollm2-135m"
ASK = [{"role": "user", "content": "What is 2+2?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"type": "string", "enum": ["UTC", "CET"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
    },
}


class City(BaseModel):
    city: str
    rivers: int


@pytest.fixture
def client(smollm2_server: Any) -> Any:
    with OpenAI(base_url=f"{smollm2_server.url}/v1", api_key=smollm2_server.api_key, max_retries=0) as client:
        yield client


def test_a_real_answer(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=30, temperature=0, seed=1)
    assert "4" in (answer.choices[0].message.content or "")
    assert answer.model == MODEL
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 1
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id


def test_a_stream_says_the_same_as_the_whole_answer(client: OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "messages": ASK, "max_tokens": 20, "temperature": 0, "seed": 1}
    whole = client.chat.completions.create(**options)
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert not any(chunk.usage for chunk in client.chat.completions.create(stream=True, **options))


def test_the_stream_helper(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=ASK, max_tokens=200, temperature=0) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content


def test_the_async_client_runs_many_at_once(smollm2_server: Any) -> None:
    async def run() -> list[str]:
        async with AsyncOpenAI(base_url=f"{smollm2_server.url}/v1", api_key=smollm2_server.api_key) as client:

            async def one(number: int) -> str:
                stream = await client.chat.completions.create(
                    model=MODEL, messages=ASK, max_tokens=8, temperature=0, stream=True, user=str(number)
                )
                return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

            return await asyncio.gather(*[one(number) for number in range(8)])

    answers = asyncio.run(run())
    assert len(answers) == 8
    assert all(answers)


def test_several_choices_are_all_counted(client: OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "messages": ASK, "max_tokens": 5, "n": 3, "temperature": 1, "seed": 4}
    answer = client.chat.completions.create(extra_body={"ignore_eos": True}, **options)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 15
    chunks = list(
        client.chat.completions.create(
            stream=True, stream_options={"include_usage": True}, extra_body={"ignore_eos": True}, **options
        )
    )
    assert {chunk.choices[0].index for chunk in chunks if chunk.choices} == {0, 1, 2}
    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [15]


def test_stop_logprobs_and_length(client: OpenAI) -> None:
    stopped = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=40, temperature=0, stop=["4"])
    assert stopped.choices[0].finish_reason == "stop"
    assert "4" not in (stopped.choices[0].message.content or "")
    short = client.chat.completions.create(
        model=MODEL, messages=ASK, max_completion_tokens=3, logprobs=True, top_logprobs=2
    )
    assert short.choices[0].finish_reason == "length"
    assert short.choices[0].logprobs is not None
    tokens = short.choices[0].logprobs.content or []
    assert len(tokens) == 3
    assert all(len(token.top_logprobs) == 2 for token in tokens)
    assert "".join(token.token for token in tokens) == short.choices[0].message.content


def test_ignore_eos_and_min_tokens_for_load_tests(client: OpenAI) -> None:
    for extra in ({"ignore_eos": True}, {"min_tokens": 60}):
        answer = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Say ok."}], max_tokens=60, extra_body=extra
        )
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 60


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("choice", "names"),
    [("required", {"get_weather", "get_time"}), ({"type": "function", "function": {"name": "get_time"}}, {"get_time"})],
)
def test_a_forced_tool_is_called_with_valid_arguments(
    client: OpenAI, choice: Any, names: set[str], stream: bool
) -> None:
    options: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [WEATHER, TIME],
        "tool_choice": choice,
        "max_tokens": 80,
        "temperature": 0,
    }
    if stream:
        with client.chat.completions.stream(**options) as running:
            message, finish = running.get_final_completion().choices[0].message, "tool_calls"
            assert running.get_final_completion().choices[0].finish_reason == finish
    else:
        answer = client.chat.completions.create(**options)
        message = answer.choices[0].message
        assert answer.choices[0].finish_reason == "tool_calls"
    calls = message.tool_calls or []
    assert len(calls) == 1
    assert calls[0].function.name in names
    assert calls[0].id.startswith("call_")
    arguments = json.loads(calls[0].function.arguments)
    assert set(arguments) in ({"city"}, {"zone"})


def test_an_agents_loop_with_tool_results(client: OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    first = client.chat.completions.create(
        model=MODEL, messages=messages, tools=[WEATHER], tool_choice="required", max_tokens=60, temperature=0
    )
    call = (first.choices[0].message.tool_calls or [])[0]
    messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"}]
    last = client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER], max_tokens=40, temperature=0)
    assert last.choices[0].message.content or last.choices[0].message.tool_calls


def test_structured_output(client: OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Paris lies at one river. Answer as JSON."}]
    parsed = client.chat.completions.parse(
        model=MODEL, messages=messages, response_format=City, max_tokens=80, temperature=0
    )
    assert isinstance(parsed.choices[0].message.parsed, City)
    loose = client.chat.completions.create(
        model=MODEL, messages=messages, response_format={"type": "json_object"}, max_tokens=150, temperature=0
    )
    if loose.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(loose.choices[0].message.content or ""), dict)


def test_text_completions(client: OpenAI) -> None:
    whole = client.completions.create(model=MODEL, prompt="The sky is", max_tokens=6, temperature=0, logprobs=2)
    assert whole.choices[0].text
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert "".join(logprobs.tokens or []) == whole.choices[0].text
    assert len(logprobs.top_logprobs or []) == 6
    stream = client.completions.create(model=MODEL, prompt="The sky is", max_tokens=6, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == whole.choices[0].text
    several = client.completions.create(model=MODEL, prompt=["The sky is", "The sea is"], max_tokens=4, temperature=0)
    assert [choice.index for choice in several.choices] == [0, 1]
    assert several.usage is not None
    assert several.usage.completion_tokens == 8
    assert several.usage.prompt_tokens == 6
    many = client.completions.create(model=MODEL, prompt=["a", "b"], n=2, max_tokens=1)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]


def test_models(client: OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("meta/llama-9")
    assert error.value.code == "model_not_found"


def test_errors_are_the_clients_own(client: OpenAI, smollm2_server: Any) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-tw-wrong").chat.completions.create(model=MODEL, messages=ASK)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nope", messages=ASK)
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=-1)
    assert error.value.param == "max_tokens"
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello " * 9000}])
    assert error.value.code == "context_length_exceeded"


def test_what_has_no_effect_is_reported(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASK, max_tokens=2, user="u", extra_body={"wizardry": 3}
    )
    assert raw.headers["x-tokenworks-ignored"] == "user,wizardry"


def test_a_client_that_leaves_frees_the_engine(client: OpenAI, smollm2_server: Any, wait_until: Any) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=ASK, max_tokens=2000, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    request_id = stream.response.headers["x-request-id"]
    stream.close()

    def settled() -> Any:
        rows = smollm2_server.call("GET", "/admin/v1/usage?limit=50", key=smollm2_server.admin_key)[1]["data"]
        return [row for row in rows if row["request_id"] == request_id and row["outcome"] == "cancelled"]

    row = wait_until(settled, "the cancelled attempt in the usage")[0]
    assert row["usage"]["output"] < 1900


def test_usage_reaches_control_and_adds_up(client: OpenAI, smollm2_server: Any, wait_until: Any) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=ASK, max_tokens=7, temperature=0)
    usage = raw.parse().usage
    assert usage is not None
    request_id = raw.headers["x-request-id"]

    def found() -> Any:
        rows = smollm2_server.call("GET", "/admin/v1/usage?limit=50", key=smollm2_server.admin_key)[1]["data"]
        return [row for row in rows if row["request_id"] == request_id and row["outcome"] == "completed"]

    row = wait_until(found, "the attempt in the usage")[0]
    assert row["usage"]["output"] == usage.completion_tokens
    assert row["usage"]["input"] + row["usage"]["cached_input"] == usage.prompt_tokens


def test_plain_http_works_too(smollm2_server: Any) -> None:
    """The README's curl line."""
    answer = httpx2.post(
        f"{smollm2_server.url}/v1/chat/completions",
        headers={"Authorization": f"Bearer {smollm2_server.api_key}"},
        json={"model": MODEL, "messages": ASK, "max_tokens": 5},
        timeout=60,
    )
    assert answer.status_code == 200
