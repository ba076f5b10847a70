"""`/v1/responses` through a real gateway with the official client: onto an upstream that speaks chat completions
(model `assistant`), and onto one that speaks the same protocol (model `answers`)."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from aiohttp import web
from pydantic import BaseModel

KEY = "sk-tw-test-key"
CHAT_USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
TOOLS: Any = [
    {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False},
    {"type": "function", "name": "clock", "parameters": {"type": "object"}, "strict": False},
]


class City(BaseModel):
    name: str
    people: int


@pytest.fixture
def client(gateway: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=20) as client:
        yield client


def streaming(pieces: list[bytes], *, cut: bool = False, pause: float = 0.0) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(pause)
        if cut and request.transport is not None:
            request.transport.abort()
        return response

    return script


def whole(body: dict[str, Any], status: int = 200) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return script


def chat(*deltas: dict[str, Any], finish: str = "stop") -> list[bytes]:
    head = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": "model-1"}
    choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    bodies = [{"choices": [choice]} for choice in [*choices, {"index": 0, "delta": {}, "finish_reason": finish}]]
    bodies.append({"choices": [], "usage": CHAT_USAGE})
    return [b"data: " + json.dumps({**head, **body}).encode() + b"\n\n" for body in bodies] + [b"data: [DONE]\n\n"]


def calls(*parts: tuple[int, str | None, str, str]) -> list[dict[str, Any]]:
    return [
        {
            "tool_calls": [
                {"index": index, "function": {"arguments": arguments}}
                | ({"id": call, "type": "function", "function": {"name": name, "arguments": arguments}} if call else {})
            ]
        }
        for index, call, name, arguments in parts
    ]


PARALLEL = calls(
    (0, "call_a", "weather", '{"city":'),
    (1, "call_b", "clock", ""),
    (0, None, "", ' "Paris"}'),
    (1, None, "", '{"zone":1e2}'),
)


def kinds(events: list[Any]) -> list[str]:
    return [event.type.removeprefix("response.") for event in events]


def test_a_whole_answer_has_every_member_of_the_schema(gateway: Any, client: openai.OpenAI) -> None:
    raw = client.responses.with_raw_response.create(model="assistant", input="Say hello", instructions="Be brief.")
    response, body = raw.parse(), json.loads(raw.text)
    assert response.output_text == "Hello!"
    assert response.status == "completed"
    assert response.usage is not None and response.usage.total_tokens == 15
    assert gateway.upstream.seen[0].path == "/v1/chat/completions"
    assert gateway.upstream.seen[0].body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Say hello"},
    ]
    required = (
        "id object created_at completed_at status incomplete_details model previous_response_id instructions output "
        "error tools tool_choice truncation parallel_tool_calls text top_p presence_penalty frequency_penalty "
        "top_logprobs temperature reasoning user usage max_output_tokens max_tool_calls store background service_tier "
        "metadata safety_identifier prompt_cache_key"
    )
    assert set(required.split()) <= body.keys()
    assert body["instructions"] == "Be brief."
    settled = gateway.control.settled(raw.headers["x-request-id"])
    assert (settled.usage.input, settled.usage.output) == (12, 3)


def test_a_stream_has_the_whole_grammar_of_events(gateway: Any, client: openai.OpenAI) -> None:
    gateway.upstream.script = streaming(chat({"content": "Hel"}, {"content": "lo"}))
    with client.responses.stream(model="assistant", input="Say hello") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert kinds(events) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.output_text == "Hello"
    assert final.usage is not None and final.usage.input_tokens_details.cached_tokens == 4
    settled = gateway.control.settled(final.id.removeprefix("resp_"))
    assert (settled.usage.input, settled.usage.cached_input, settled.usage.output) == (8, 4, 3)


def test_every_event_names_its_type_and_nothing_follows_the_last(gateway: Any, client: openai.OpenAI) -> None:
    gateway.upstream.script = streaming(chat({"content": "Hi"}))
    with client.responses.with_streaming_response.create(model="assistant", input="Hi", stream=True) as response:
        blocks = response.read().decode().strip().split("\n\n")
    for block in blocks:
        name, data = block.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"
    assert blocks[-1].startswith("event: response.completed\n")


@pytest.mark.parametrize("stream", [True, False])
def test_parallel_function_calls_keep_their_arguments(gateway: Any, client: openai.OpenAI, stream: bool) -> None:
    if stream:
        gateway.upstream.script = streaming(chat({"content": "One moment."}, *PARALLEL, finish="tool_calls"))
        with client.responses.stream(model="assistant", input="Weather?", tools=TOOLS) as events:
            final: Any = events.get_final_response()
    else:
        made = [
            {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}},
            {"id": "call_b", "type": "function", "function": {"name": "clock", "arguments": '{"zone":1e2}'}},
        ]
        message = {"role": "assistant", "content": "One moment.", "tool_calls": made}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        gateway.upstream.script = whole({"id": "x", "model": "m", "choices": [choice], "usage": CHAT_USAGE})
        final = client.responses.create(model="assistant", input="Weather?", tools=TOOLS)
    assert [item.type for item in final.output] == ["message", "function_call", "function_call"]
    assert [item.arguments for item in final.output[1:]] == ['{"city": "Paris"}', '{"zone":1e2}']
    assert [item.call_id for item in final.output[1:]] == ["call_a", "call_b"]
    assert gateway.upstream.seen[0].body["tools"][0]["function"]["name"] == "weather"


def test_the_next_turn_reaches_the_upstream_as_one_assistant_message(gateway: Any, client: openai.OpenAI) -> None:
    thought = {"reasoning_content": "They want the weather."}
    gateway.upstream.script = streaming(chat(thought, *PARALLEL, finish="tool_calls"))
    with client.responses.stream(model="assistant", input="Weather?", tools=TOOLS) as events:
        output: Any = [item.to_dict() for item in events.get_final_response().output]
    for item in output:
        item.pop("parsed_arguments", None)
    results = [{"type": "function_call_output", "call_id": call, "output": "fine"} for call in ("call_a", "call_b")]
    gateway.upstream.script = streaming(chat({"content": "Fine."}))
    with client.responses.stream(
        model="assistant", input=[{"role": "user", "content": "Weather?"}, *output, *results]
    ) as events:
        assert events.get_final_response().output_text == "Fine."
    user, assistant, first, second = gateway.upstream.seen[1].body["messages"]
    assert assistant["reasoning_content"] == "They want the weather."
    assert [call["function"]["arguments"] for call in assistant["tool_calls"]] == ['{"city": "Paris"}', '{"zone":1e2}']
    assert [first["tool_call_id"], second["tool_call_id"]] == ["call_a", "call_b"]
    assert user["content"] == "Weather?"


def test_structured_output_is_parsed_by_the_client(gateway: Any, client: openai.OpenAI) -> None:
    text = '{"name": "Paris", "people": 2100000}'
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    gateway.upstream.script = whole({"id": "x", "model": "m", "choices": [choice], "usage": CHAT_USAGE})
    parsed = client.responses.parse(model="assistant", input="A city", text_format=City)
    assert parsed.output_parsed == City(name="Paris", people=2_100_000)
    sent = gateway.upstream.seen[0].body["response_format"]["json_schema"]
    assert (sent["name"], sent["strict"], sent["schema"]["required"]) == ("City", True, ["name", "people"])
    gateway.upstream.script = streaming(chat({"content": text[:9]}, {"content": text[9:]}))
    with client.responses.stream(model="assistant", input="A city", text_format=City) as stream:
        assert stream.get_final_response().output_parsed == City(name="Paris", people=2_100_000)


def test_reasoning_comes_as_an_item_before_the_message(gateway: Any, client: openai.OpenAI) -> None:
    gateway.upstream.script = streaming(chat({"reasoning": "Think"}, {"reasoning": "ing."}, {"content": "4"}))
    with client.responses.stream(model="assistant", input="2+2", reasoning={"effort": "low"}) as stream:
        events, final = list(stream), stream.get_final_response()
    assert kinds(events)[2:9] == [
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done",
    ]  # fmt: skip
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.output[0].content[0].text == "Thinking."  # type: ignore[union-attr,index]
    assert final.reasoning is not None and final.reasoning.effort == "low"
    assert gateway.upstream.seen[0].body["reasoning_effort"] == "low"


def test_a_refusal_is_one(gateway: Any, client: openai.OpenAI) -> None:
    gateway.upstream.script = streaming(chat({"refusal": "I will"}, {"refusal": " not."}))
    with client.responses.stream(model="assistant", input="Harm") as stream:
        events, final = list(stream), stream.get_final_response()
    assert kinds(events)[4:7] == ["refusal.delta", "refusal.delta", "refusal.done"]
    assert final.output[0].content[0].refusal == "I will not."  # type: ignore[union-attr]


def test_the_limit_makes_an_answer_incomplete(gateway: Any, client: openai.OpenAI) -> None:
    gateway.upstream.script = streaming(chat({"content": "Once upon"}, finish="length"))
    events = list(client.responses.create(model="assistant", input="A tale", max_output_tokens=16, stream=True))
    last: Any = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.output[0].status == "incomplete"
    assert last.response.output_text == "Once upon"
    assert last.response.max_output_tokens == 16


@pytest.mark.parametrize("model", ["assistant", "answers"])
def test_a_stream_that_breaks_fails_the_response_it_began(gateway: Any, client: openai.OpenAI, model: str) -> None:
    pieces = chat({"content": "Once"})[:1] if model == "assistant" else native()[:5]
    gateway.upstream.script = streaming(pieces, cut=True, pause=0.02)
    events: list[Any] = list(client.responses.create(model=model, input="A tale", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.status == "failed"
    assert events[-1].response.error.message
    assert {event.response.id for event in events if hasattr(event, "response")} == {events[0].response.id}
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_silence_before_the_first_event_fails_too(gateway: Any, client: openai.OpenAI) -> None:
    """Keep-alive comments have begun the stream, so the failure can only be told inside it."""
    gateway.upstream.script = streaming([b": wait\n\n"] * 40, pause=0.1)
    events: list[Any] = list(client.responses.create(model="assistant", input="A tale", stream=True))
    assert kinds(events) == ["created", "in_progress", "failed"]
    assert events[-1].response.error.code == "first_token_timeout"


def test_an_upstreams_refusal_is_an_error_in_the_usual_shape(gateway: Any, client: openai.OpenAI) -> None:
    gateway.upstream.script = whole({"error": {"message": "No such voice.", "param": "input"}}, status=400)
    with pytest.raises(openai.BadRequestError, match="No such voice"):
        client.responses.create(model="assistant", input="Hi")


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "wat", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"text": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"background": True, "store": False}, "background"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "messages"),
    ],
)
def test_bad_input_is_named(gateway: Any, client: openai.OpenAI, members: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="assistant", extra_body={"input": "Hi", **members})
    assert raised.value.param == param
    assert not gateway.upstream.seen


RESPONSE: dict[str, Any] = {
    "id": "resp_up", "object": "response", "created_at": 1, "status": "in_progress", "model": "model-r", "output": [],
    "usage": None, "error": None, "incomplete_details": None, "parallel_tool_calls": True, "tool_choice": "auto",
    "tools": [],
}  # fmt: skip
MESSAGE: dict[str, Any] = {
    "id": "msg_up", "type": "message", "status": "completed", "role": "assistant",
    "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
}  # fmt: skip
USAGE = {
    "input_tokens": 12, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 15,
}  # fmt: skip
DONE = {**RESPONSE, "status": "completed", "output": [MESSAGE], "usage": USAGE, "surprise": [1.50]}


def native(final: dict[str, Any] = DONE) -> list[bytes]:
    place = {"item_id": "msg_up", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    events: list[tuple[str, dict[str, Any]]] = [
        ("created", {"response": RESPONSE}),
        ("in_progress", {"response": RESPONSE}),
        ("output_item.added", {"output_index": 0, "item": {**MESSAGE, "status": "in_progress", "content": []}}),
        ("content_part.added", {**place, "part": part}),
        ("output_text.delta", {**place, "delta": "Hello", "logprobs": [], "obfuscation": "x1"}),
        ("output_text.done", {**place, "text": "Hello", "logprobs": []}),
        ("content_part.done", {**place, "part": MESSAGE["content"][0]}),
        ("output_item.done", {"output_index": 0, "item": MESSAGE}),
        (final["status"], {"response": final}),
    ]
    return [
        b"event: response." + kind.encode() + b"\ndata: "
        + json.dumps({"type": f"response.{kind}", "sequence_number": number, **members}).encode() + b"\n\n"
        for number, (kind, members) in enumerate(events)
    ]  # fmt: skip


KEPT_HERE = {"store": False, "background": False, "previous_response_id": None}


def read(stream: bytes, **members: Any) -> list[Any]:
    """The events; their response objects with other members."""
    events = [json.loads(block.partition(b"data: ")[2]) for block in stream.strip().split(b"\n\n")]
    for event in events:
        if "response" in event:
            event["response"] |= members
    return events


def test_the_same_protocol_passes_through_under_our_own_id(gateway: Any, client: openai.OpenAI) -> None:
    gateway.upstream.script = streaming(native())
    request: Any = {"model": "answers", "input": "Hi", "store": False, "tools": [{"type": "web_search"}]}
    paid = {**DONE, "usage": {**DONE["usage"], "cost": 3.3e-06, "cost_nano_usd": 3300}}
    with client.responses.with_streaming_response.create(**request, stream=True) as response:
        ours = f"resp_{response.headers['x-request-id']}"
        assert read(response.read()) == read(b"".join(native(paid)), id=ours, **KEPT_HERE)
        settled = gateway.control.settled(response.headers["x-request-id"])
    assert gateway.upstream.seen[0].path == "/v1/responses"
    assert gateway.upstream.seen[0].body == {**request, "model": "model-r", "stream": True}
    assert (settled.usage.input, settled.usage.cached_input, settled.usage.reasoning) == (8, 4, 1)
    gateway.upstream.script = whole(DONE)
    raw = client.responses.with_raw_response.create(**request)
    ours = f"resp_{raw.headers['x-request-id']}"
    assert json.loads(raw.text) == {**paid, **KEPT_HERE, "id": ours}
    assert raw.headers["x-tokenworks-cost-nano-usd"] == "3300"


def test_reasoning_that_is_stored_comes_with_its_proof(gateway: Any, client: openai.OpenAI) -> None:
    gateway.upstream.script = whole(DONE)
    for store in (True, False):
        client.responses.create(model="answers", input="Hi", store=store, reasoning={"effort": "low"})
    first, second = [seen.body for seen in gateway.upstream.seen]
    assert (first["store"], first["include"]) == (False, ["reasoning.encrypted_content"])
    assert second["store"] is False and "include" not in second


def test_an_upstreams_own_failure_is_passed_on(gateway: Any, client: openai.OpenAI) -> None:
    failed = {**RESPONSE, "status": "failed", "error": {"code": "server_error", "message": "It broke."}}
    gateway.upstream.script = streaming(native(failed), pause=0.02)
    events: list[Any] = list(client.responses.create(model="answers", input="Hi", stream=True))
    assert events[-1].type == "response.failed"
    assert "It broke." in events[-1].response.error.message
    gateway.upstream.script = whole(failed)
    with pytest.raises(openai.APIStatusError, match=r"It broke\."):
        client.responses.create(model="answers", input="Hi")


def test_a_chat_client_is_answered_by_an_upstream_of_this_protocol(gateway: Any, client: openai.OpenAI) -> None:
    gateway.upstream.script = streaming(native())
    hello: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    with client.chat.completions.stream(model="answers", messages=hello, max_tokens=20) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Hello"
    assert gateway.upstream.seen[0].body == {
        "model": "model-r", "instructions": "Be brief.", "max_output_tokens": 20, "store": False, "stream": True,
        "input": [{"type": "message", "role": "user", "content": "Hi"}],
    }  # fmt: skip
    gateway.upstream.script = whole(DONE)
    answer = client.chat.completions.create(model="answers", messages=hello)
    assert answer.choices[0].message.content == "Hello"
    assert answer.usage is not None and answer.usage.prompt_tokens == 12
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model="answers", messages=hello, stop=["."])
    assert raised.value.param == "stop"
