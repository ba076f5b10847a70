"""The official `openai` client on the Responses API, over real sockets against `tokenworks serve`: what is stored,
continued, run in the background, read again, cancelled and counted."""

import asyncio
import time
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

WORDS = " ".join(f"w{number}" for number in range(40))


@pytest.fixture
def client(patient_server: Any) -> Any:
    """The models say the last message again, word by word; `slow` takes two seconds for WORDS."""
    url, key = f"{patient_server.url}/v1", patient_server.api_key
    with OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
def stranger(patient_server: Any, strangers_key: str) -> Any:
    with OpenAI(base_url=f"{patient_server.url}/v1", api_key=strangers_key, max_retries=0, timeout=60) as client:
        yield client


def until_ended(client: OpenAI, response: Any) -> Any:
    deadline = time.monotonic() + 60
    while response.status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
        response = client.responses.retrieve(response.id)
    return response


def dicts(events: Any) -> list[Any]:
    return [event.to_dict() for event in events]


def test_a_response_is_stored_and_read_again(client: OpenAI) -> None:
    made = client.responses.create(model="echo", input="one two three", metadata={"a": "b"})
    again = client.responses.retrieve(made.id)
    assert again.to_dict() == made.to_dict()
    assert made.to_dict()["store"] is True
    assert (again.output_text, again.metadata) == ("one two three", {"a": "b"})
    assert again.completed_at is not None


def test_store_false_stores_nothing(client: OpenAI) -> None:
    made = client.responses.create(model="echo", input="Hi", store=False)
    assert made.to_dict()["store"] is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_stream_is_stored_with_its_events(client: OpenAI) -> None:
    events = list(client.responses.create(model="echo", input="one two three", stream=True))
    last: Any = events[-1]
    assert last.type == "response.completed"
    assert client.responses.retrieve(last.response.id).to_dict() == last.response.to_dict()
    assert dicts(client.responses.retrieve(last.response.id, stream=True)) == dicts(events)
    rest = client.responses.retrieve(last.response.id, stream=True, starting_after=4)
    assert dicts(rest) == dicts(events[5:])
    whole = client.responses.create(model="echo", input="Hi")
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.retrieve(whole.id, stream=True)
    assert raised.value.param == "stream"


def test_the_stream_helper(client: OpenAI) -> None:
    with client.responses.stream(model="echo", input="one two three") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == "one two three"
    assert client.responses.retrieve(final.id).output_text == "one two three"


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_goes_on_from_what_was_stored(client: OpenAI, stream: bool) -> None:
    first = client.responses.create(model="echo", input="one two", instructions="Be brief.")
    second = client.responses.create(model="echo", input="three", previous_response_id=first.id)
    if stream:
        with client.responses.stream(model="echo", input="four", previous_response_id=second.id) as events:
            third: Any = events.get_final_response()
    else:
        third = client.responses.create(model="echo", input="four", previous_response_id=second.id)
    assert third.previous_response_id == second.id
    assert first.usage and second.usage and third.usage
    # Each turn's prompt holds the turns before it.
    assert first.usage.input_tokens < second.usage.input_tokens < third.usage.input_tokens
    counted = client.responses.input_tokens.count(model="echo", input="four", previous_response_id=second.id)
    assert counted.input_tokens == third.usage.input_tokens
    assert [item.content[0].text for item in client.responses.input_items.list(third.id)] == ["four"]  # type: ignore


def test_a_real_model_remembers(smollm2_server: Any) -> None:
    with OpenAI(base_url=f"{smollm2_server.url}/v1", api_key=smollm2_server.api_key, max_retries=0) as client:
        ask: dict[str, Any] = {"model": "smollm2-135m", "max_output_tokens": 12, "temperature": 0}
        first = client.responses.create(input="My name is Ada.", **ask)
        second = client.responses.create(input="What is my name?", previous_response_id=first.id, **ask)
        said: Any = [
            {"role": "user", "content": "My name is Ada."},
            *[item.to_dict() for item in first.output],
            {"role": "user", "content": "What is my name?"},
        ]
        by_hand = client.responses.create(input=said, **ask)
        counted = client.responses.input_tokens.count(
            model="smollm2-135m", input="What is my name?", previous_response_id=first.id
        )
    assert second.output_text == by_hand.output_text
    assert second.usage and by_hand.usage
    assert second.usage.input_tokens == by_hand.usage.input_tokens == counted.input_tokens


def test_what_is_not_there_or_not_ours_is_not_found(client: OpenAI, stranger: OpenAI) -> None:
    theirs = stranger.responses.create(model="echo", input="secret").id
    assert stranger.responses.retrieve(theirs).output_text == "secret"
    for unknown in (theirs, "resp_nothing", "resp_../../x"):
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(unknown)
        with pytest.raises(openai.NotFoundError):
            client.responses.delete(unknown)
        with pytest.raises(openai.NotFoundError):
            client.responses.cancel(unknown)
        with pytest.raises(openai.NotFoundError):
            list(client.responses.input_items.list(unknown))
        with pytest.raises(openai.NotFoundError) as raised:
            client.responses.create(model="echo", input="Hi", previous_response_id=unknown)
        assert raised.value.param == "previous_response_id"
    assert stranger.responses.retrieve(theirs).output_text == "secret"


def test_a_deleted_response_is_gone_and_cannot_be_continued(client: OpenAI) -> None:
    first = client.responses.create(model="echo", input="one")
    second = client.responses.create(model="echo", input="two", previous_response_id=first.id)
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError, match="gone"):
        client.responses.create(model="echo", input="three", previous_response_id=second.id)


def test_input_items_come_in_pages(client: OpenAI) -> None:
    said: Any = [{"role": "user", "content": f"item {number}"} for number in range(5)]
    made = client.responses.create(model="echo", input=said)
    newest = [item.content[0].text for item in client.responses.input_items.list(made.id, limit=2)]  # type: ignore
    assert newest == [f"item {number}" for number in (4, 3, 2, 1, 0)]
    page = client.responses.input_items.list(made.id, order="asc", limit=2)
    assert page.has_more
    assert [item.content[0].text for item in page] == [f"item {number}" for number in range(5)]  # type: ignore
    with pytest.raises(openai.BadRequestError):
        client.responses.input_items.list(made.id, after="nothing")
    with pytest.raises(openai.BadRequestError):
        client.responses.input_items.list(made.id, limit=101)


@pytest.mark.parametrize("stream", [False, True])
def test_a_background_response_runs_on_without_its_caller(client: OpenAI, stream: bool) -> None:
    if stream:
        events = client.responses.create(model="slow", input=WORDS, background=True, stream=True)
        first: Any = next(iter(events))
        events.close()
        made = client.responses.retrieve(first.response.id)
    else:
        made = client.responses.create(model="slow", input=WORDS, background=True)
    assert made.status in ("queued", "in_progress")
    ended = until_ended(client, made)
    assert (ended.status, ended.output_text, ended.background) == ("completed", WORDS, True)
    assert ended.id == made.id
    assert ended.completed_at is not None


def test_a_background_stream_is_taken_up_again(client: OpenAI) -> None:
    events: Any = client.responses.create(model="slow", input=WORDS, background=True, stream=True)
    seen = []
    for event in events:
        seen.append(event)
        if len(seen) == 10:
            break
    events.close()
    rest = list(client.responses.retrieve(seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number))
    assert [event.sequence_number for event in [*seen, *rest]] == list(range(len(seen) + len(rest)))
    last: Any = rest[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == WORDS


def test_a_background_response_is_cancelled(client: OpenAI) -> None:
    made = client.responses.create(model="slow", input=WORDS, background=True)
    cancelled = client.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    assert client.responses.cancel(made.id).status == "cancelled"
    time.sleep(2.5)  # longer than it would have taken
    assert client.responses.retrieve(made.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(client.responses.create(model="echo", input="Hi").id)


def test_who_reads_along_sees_the_cancellation(client: OpenAI) -> None:
    events: Any = client.responses.create(model="slow", input=WORDS, background=True, stream=True)
    seen = []
    for event in events:
        seen.append(event)
        if len(seen) == 8:
            client.responses.cancel(seen[0].response.id)
    assert seen[-1].type == "response.cancelled"
    assert seen[-1].response["status"] == "cancelled"
    again = list(client.responses.retrieve(seen[0].response.id, stream=True))
    assert [event.type for event in again] == [event.type for event in seen]


@pytest.mark.parametrize("stream", [False, True])
def test_a_background_response_that_fails_says_so(client: OpenAI, stream: bool) -> None:
    if stream:
        events: Any = list(
            client.responses.create(model="echo", input="fault=cut after 2 a b c", background=True, stream=True)
        )
        assert events[-1].type == "response.failed"
        made = client.responses.retrieve(events[0].response.id)
    else:
        made = client.responses.create(model="echo", input="fault=error_before", background=True)
    ended = until_ended(client, made)
    assert ended.status == "failed"
    assert ended.error is not None and ended.error.message


@pytest.mark.parametrize("stream", [False, True])
def test_what_has_no_effect_in_the_background_is_reported_or_refused(client: OpenAI, stream: bool) -> None:
    asked: Any = {"model": "echo", "input": "a", "background": True, "stream": stream, "extra_body": {"wizardry": 1}}
    raw = client.responses.with_raw_response.create(**asked)
    assert raw.headers["x-tokenworks-ignored"] == "wizardry"
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**asked, extra_headers={"x-tokenworks-strict": "true"})
    assert refused.value.param == "wizardry"


def test_what_cannot_run_in_the_background_is_refused_at_once(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nothing", input="Hi", background=True)
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="echo", input="Hi", background=True, store=False)
    assert raised.value.param == "background"


def test_the_asynchronous_client(patient_server: Any) -> None:
    async def run() -> list[str]:
        async with AsyncOpenAI(base_url=f"{patient_server.url}/v1", api_key=patient_server.api_key) as client:

            async def one(number: int) -> str:
                made = await client.responses.create(model="echo", input=f"number {number}")
                return (await client.responses.retrieve(made.id)).output_text

            return await asyncio.gather(*[one(number) for number in range(16)])

    assert asyncio.run(run()) == [f"number {number}" for number in range(16)]
