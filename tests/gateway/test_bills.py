"""Bills that other gateways are known to get wrong, to the nano-dollar: through a real gateway, at published prices.

Each test names the complaint: cached tokens (litellm#9812, #11364, #11789, #14849), thresholds (#30135, #39861), tiers
(#13810, #35925), reasoning, batches, callers who leave (#33736, #39589), answers that break off (new-api#5288).
"""

import asyncio
import http.client
import io
import json
import wave
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tokenworks.journal.records import Settled, UsageRecord
from tokenworks.snapshot.records import ModelRecord, PriceRecord, TargetRecord, WhenRecord
from tokenworks.snapshot.state import State

KEY = "sk-tw-test-key"
MILLION = 1_000_000

CHAT = {"input": 2_000 * MILLION, "cached_input": 200 * MILLION, "cache_write": 2_500 * MILLION}
CHAT |= {"cache_write_1h": 5_000 * MILLION, "output": 10_000 * MILLION}
HALF, DOUBLE = (1, 2), (2, 1)
CONDITIONS = (
    WhenRecord({"input": DOUBLE, "output": (3, 2)}, above=272_000),
    WhenRecord({"input": HALF, "output": HALF}, tier="flex"),
    WhenRecord({"input": HALF, "output": HALF}, tier="batch"),
    WhenRecord({"input": DOUBLE, "output": DOUBLE}, tier="priority"),
)
"""2/10 USD per million, cached 0.1x, written 1.25x and 2.5x; twice (output 1.5x) above 272k; flex and batch half."""
CLAUDE = {"input": 4_000 * MILLION, "cached_input": 400 * MILLION, "cache_write": 5_000 * MILLION}
CLAUDE |= {"cache_write_1h": 8_000 * MILLION, "output": 20_000 * MILLION}
THINKS = {"input": 0, "output": 400 * MILLION, "reasoning": 3_500 * MILLION}
SEES = {"input": 0, "output": 0, "images": 2_000_000 * MILLION, "audio_ms": 100 * MILLION, "gpu_ms": MILLION}
"""0.002 USD an image, 0.0001 USD a second of sound, 0.000001 USD a millisecond of ours."""
COST = {"input": 1_000 * MILLION, "output": 5_000 * MILLION}


def priced(state: State) -> State:
    limits, policy = state.models["assistant"].limits, state.models["assistant"].policy

    def model(name: str, upstream: str, rates: dict[str, int], when: tuple[WhenRecord, ...] = ()) -> ModelRecord:
        target = TargetRecord(upstream, "up-1", (PriceRecord(COST, when[1:2], id="cost"),))
        return ModelRecord(name, 1, (target,), limits, (PriceRecord(rates, when, id=f"price_{name}"),), policy=policy)

    sold = [
        model("sol", "upstream-a", CHAT, CONDITIONS),
        model("opus", "upstream-m", CLAUDE),
        model("thinks", "upstream-a", THINKS, (WhenRecord({"output": DOUBLE}, tier="priority"),)),
        model("sees", "upstream-a", SEES),
        model("claude-sees", "upstream-m", SEES),
        model("speech", "upstream-a", {"priced_requests": 3 * MILLION * MILLION, "input": 0, "output": 0}),
    ]
    kept = [msgspec.structs.replace(each, default=False) for each in state.models.values()]
    keys, upstreams = state.keys.values(), state.upstreams.values()
    return State.of(revision=2, keys=keys, models=[*kept, *sold], upstreams=upstreams)


@pytest.fixture
def seller(gateway: Any) -> Iterator[Any]:
    before = gateway.control._state
    gateway.control.publish(priced(before))
    deadline = 200
    while post(gateway, {"model": "sol", "messages": [{"role": "user", "content": "?"}]}).status == 404 and deadline:
        deadline -= 1
    gateway.upstream.seen.clear()
    yield gateway
    gateway.control.publish(before)


class Reply:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.body = response.status, response.read()
        self.headers = {name.lower(): value for name, value in response.getheaders()}


def post(gateway: Any, body: dict[str, Any], path: str = "/v1/chat/completions") -> Reply:
    host, port = gateway.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    try:
        connection.request("POST", path, json.dumps(body), headers)
        return Reply(connection.getresponse())
    finally:
        connection.close()


def reporting(usage: dict[str, Any], tier: str | None = None) -> Any:
    """An upstream of chat that answers one word and reports this."""
    head = {"id": "c", "created": 1, "model": "up-1", "service_tier": tier}

    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        choice = {"index": 0, "finish_reason": "stop"}
        if not seen.body.get("stream"):
            message = {"role": "assistant", "content": "word"}
            return web.json_response({**head, "choices": [{**choice, "message": message}], "usage": usage})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for chunk in (
            {"choices": [{"index": 0, "delta": {"content": "word"}}]},
            {"choices": [{**choice, "delta": {}}]},
            {"choices": [], "usage": usage},
        ):
            await response.write(b"data: " + json.dumps({**head, **chunk}).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    return script


def billed(gateway: Any, model: str, usage: dict[str, Any], tier: str | None = None, **members: Any) -> Settled:
    """As a whole answer and as a stream, which must cost the same and say so."""
    gateway.upstream.script = reporting(usage, tier)
    asked = {"model": model, "messages": [{"role": "user", "content": "x" * 100_000}], **members}
    whole = post(gateway, asked)
    streamed = post(gateway, {**asked, "stream": True, "stream_options": {"include_usage": True}})
    assert (whole.status, streamed.status) == (200, 200), whole.body
    bills = [gateway.control.settled(reply.headers["x-request-id"]) for reply in (whole, streamed)]
    assert bills[0].charge == bills[1].charge
    assert bills[0].usage == bills[1].usage
    told = json.loads(whole.body)["usage"]
    assert told["cost_nano_usd"] == bills[0].charge == int(whole.headers["x-tokenworks-cost-nano-usd"])
    assert f'"cost_nano_usd":{bills[0].charge}' in streamed.body.decode()
    assert bills[0].price == f"price_{model}"
    return bills[0]


def tokens(prompt: int, output: int, cached: int = 0, reasoning: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def test_cached_tokens_are_charged_once_and_at_their_own_price(seller: Any) -> None:
    bill = billed(seller, "sol", tokens(10_000, 100, cached=9_000))
    assert bill.usage == UsageRecord(input=1_000, cached_input=9_000, output=100)
    assert bill.charge == 1_000 * 2_000 + 9_000 * 200 + 100 * 10_000


@pytest.mark.parametrize("stream", [False, True])
def test_what_claude_read_and_wrote_of_its_cache(seller: Any, stream: bool) -> None:
    usage = {"input_tokens": 50, "cache_read_input_tokens": 9_000, "cache_creation_input_tokens": 2_000}
    usage |= {"cache_creation": {"ephemeral_5m_input_tokens": 1_500, "ephemeral_1h_input_tokens": 500}}
    begun = {"id": "msg_1", "type": "message", "role": "assistant", "model": "up-1", "content": []}

    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        if not seen.body.get("stream"):
            content = [{"type": "text", "text": "word"}]
            ended = {"content": content, "stop_reason": "end_turn", "usage": {**usage, "output_tokens": 100}}
            return web.json_response({**begun, **ended})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in (
            {"type": "message_start", "message": {**begun, "usage": {**usage, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 100}},
            {"type": "message_stop"},
        ):
            await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        return response

    seller.upstream.script = script
    messages = [{"role": "user", "content": "x" * 20_000}]
    for path in ("/v1/messages", "/v1/chat/completions"):
        reply = post(seller, {"model": "opus", "max_tokens": 200, "stream": stream, "messages": messages}, path)
        assert reply.status == 200, reply.body
        bill = seller.control.settled(reply.headers["x-request-id"])
        assert bill.charge == 50 * 4_000 + 9_000 * 400 + 1_500 * 5_000 + 500 * 8_000 + 100 * 20_000


def test_a_long_prompt_costs_its_price_to_the_token(seller: Any) -> None:
    assert billed(seller, "sol", tokens(90_000, 1_000)).charge == 90_000 * 2_000 + 1_000 * 10_000
    exactly = with_long_prompt(seller, 272_000)
    assert exactly.charge == 272_000 * 2_000 + 1_000 * 10_000
    above = with_long_prompt(seller, 272_001, cached=72_001)
    assert above.charge == 200_000 * 4_000 + 72_001 * 400 + 1_000 * 15_000


def with_long_prompt(gateway: Any, prompt: int, cached: int = 0, **members: Any) -> Settled:
    gateway.upstream.script = reporting(tokens(prompt, 1_000, cached), members.get("service_tier"))
    image = {"type": "image_url", "image_url": {"url": "https://example.com/long.png"}}  # more tokens than bytes
    reply = post(gateway, {"model": "sol", "messages": [{"role": "user", "content": [image]}], **members})
    assert reply.status == 200, reply.body
    settled: Settled = gateway.control.settled(reply.headers["x-request-id"])
    return settled


def test_a_tier_costs_its_price_and_a_downgrade_the_standard_one(seller: Any) -> None:
    flex = billed(seller, "sol", tokens(1_000, 100), "flex", service_tier="flex")
    assert (flex.charge, flex.cost) == ((1_000 * 2_000 + 100 * 10_000) // 2, (1_000 * 1_000 + 100 * 5_000) // 2)
    downgraded = billed(seller, "sol", tokens(1_000, 100), "default", service_tier="flex")
    assert (downgraded.charge, downgraded.tier) == (1_000 * 2_000 + 100 * 10_000, "default")
    assert billed(seller, "sol", tokens(1_000, 100), "priority", service_tier="priority").charge == 6_000_000
    assert billed(seller, "sol", tokens(1_000, 100), "default", service_tier="auto").charge == 3_000_000
    long = with_long_prompt(seller, 300_000, service_tier="flex")
    assert long.charge == (300_000 * 4_000 + 1_000 * 15_000) // 2  # both: nobody states the combination


def test_reasoning_is_charged_once_and_at_the_tier_of_its_answer(seller: Any) -> None:
    assert billed(seller, "thinks", tokens(10, 100, reasoning=80)).charge == 20 * 400 + 80 * 3_500
    prior = billed(seller, "thinks", tokens(10, 100, reasoning=80), "priority", service_tier="priority")
    assert prior.charge == 2 * (20 * 400 + 80 * 3_500)
    lying = billed(seller, "thinks", tokens(10, 100, reasoning=800))
    assert lying.charge == 100 * 3_500


def test_a_fee_for_each_request(seller: Any) -> None:
    bill = billed(seller, "speech", tokens(10, 100))
    assert (bill.charge, bill.usage.priced_requests) == (3_000_000, 1)


def left(gateway: Any, body: dict[str, Any], after: bytes) -> Settled:
    """The bill of a caller who left when it had read this."""
    host, port = gateway.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    read = b""
    while after not in read:
        read += response.read1(65536)
    response.close()
    connection.close()
    settled: Settled = gateway.control.settled(response.headers["x-request-id"])
    return settled


def test_a_caller_who_leaves_pays_for_what_was_generated_and_its_input(seller: Any) -> None:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(40):
            chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": f"w{number}"}}]}
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await asyncio.sleep(20)
        return response

    seller.upstream.script = script
    messages = [{"role": "user", "content": "x" * 4_000}]
    bill = left(seller, {"model": "sol", "stream": True, "messages": messages}, b"w39")
    assert (bill.outcome, bill.estimated, bill.usage.output) == ("cancelled", True, 40)
    assert bill.usage.input == 1_004
    assert bill.charge == 1_004 * 2_000 + 40 * 10_000
    assert bill.cost == 1_004 * 1_000 + 40 * 5_000


def test_an_engine_of_ours_counts_the_prompt_of_a_caller_who_left(seller: Any) -> None:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        if request.path == "/v1/messages/count_tokens":
            return web.json_response({"input_tokens": 777})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(9):
            chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": f"w{number}"}}]}
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await asyncio.sleep(20)
        return response

    seller.upstream.script = script
    bill = left(seller, {"model": "ours", "stream": True, "messages": [{"role": "user", "content": "x"}]}, b"w8")
    assert (bill.outcome, bill.usage) == ("cancelled", UsageRecord(input=777, output=9))


def test_an_answer_that_breaks_off_costs_the_caller_nothing_and_us_what_it_took(seller: Any) -> None:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(10):
            chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": f"w{number}"}}]}
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        return response

    seller.upstream.script = script
    messages = [{"role": "user", "content": "x" * 4_000}]
    reply = post(seller, {"model": "sol", "stream": True, "messages": messages})
    assert b"w9" in reply.body and b'"error"' in reply.body and b"[DONE]" not in reply.body
    bill = seller.control.settled(reply.headers["x-request-id"])
    assert (bill.outcome, bill.charge, bill.usage) == ("failed", 0, UsageRecord())
    assert bill.cost == 1_004 * 1_000 + 10 * 5_000


def test_an_error_is_never_billed_as_output(seller: Any) -> None:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no " * 1000}}, status=500)

    seller.upstream.script = script
    reply = post(seller, {"model": "sol", "messages": [{"role": "user", "content": "?"}]})
    bill = seller.control.settled(reply.headers["x-request-id"])
    assert (bill.outcome, bill.charge, bill.cost) == ("failed", 0, 0)


def test_a_lying_upstream_is_not_billed(seller: Any) -> None:
    lie = tokens(5_000_000, 100_000)
    bill = billed(seller, "sol", lie, max_tokens=50)
    assert bill.usage == UsageRecord(input=25_004, output=1)
    assert bill.counted == bill.usage
    assert bill.reported == UsageRecord(input=5_000_000, output=100_000)
    assert bill.estimated


def test_an_upstream_that_reports_nothing_is_counted_and_says_so(seller: Any) -> None:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x" * 4_000}}
        return web.json_response({"id": "c", "model": "up-1", "choices": [choice]})

    seller.upstream.script = script
    messages = [{"role": "user", "content": "x" * 4_000}]
    reply = post(seller, {"model": "sol", "max_tokens": 2_000, "messages": messages}, "/v1/messages")
    bill = seller.control.settled(reply.headers["x-request-id"])
    assert (bill.usage, bill.estimated) == (UsageRecord(input=1_004, output=1_000), True)
    told = json.loads(reply.body)["usage"]
    assert (told["input_tokens"], told["output_tokens"]) == (1_004, 1_000)
    assert told["cost_nano_usd"] == bill.charge == 1_004 * 2_000 + 1_000 * 10_000


IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}


def wav_of(seconds: int) -> str:
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8_000)
        file.writeframes(bytes(8_000 * seconds))
    return b64encode(made.getvalue()).decode()


def test_images_and_sound_are_billed_by_what_was_sent(seller: Any) -> None:
    sound = {**SOUND, "input_audio": {"data": wav_of(3), "format": "wav"}}
    timed = tokens(10, 1) | {"prompt_tokens_details": {"audio_tokens": 4, "image_tokens": 5}}
    bill = billed(seller, "sees", timed, messages=[{"role": "user", "content": [IMAGE, sound, IMAGE]}])
    assert (bill.usage.images, bill.usage.audio_ms, bill.usage.gpu_ms) == (2, 3_000, 0)
    assert bill.charge == 2 * 2_000_000 + 3_000 * 100
    assert (bill.reported, bill.counted, bill.estimated) == (None, None, False), "it is what the upstream reported"


def test_images_of_other_protocols_cost_the_same(seller: Any) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "aGk="}
    messages = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    asked = {"model": "sees", "max_tokens": 9, "messages": messages}
    seller.upstream.script = reporting(tokens(10, 1))
    items = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,aGk="}]}]
    for path, body in (("/v1/messages", asked), ("/v1/responses", {"model": "sees", "store": False, "input": items})):
        reply = post(seller, body, path)
        assert reply.status == 200, reply.body
        bill = seller.control.settled(reply.headers["x-request-id"])
        assert (bill.usage.images, bill.charge) == (1, 2_000_000), path


def test_a_failed_attempt_charges_no_image(seller: Any) -> None:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        return web.json_response({"error": {"message": "too big"}}, status=400)

    seller.upstream.script = script
    reply = post(seller, {"model": "sees", "messages": [{"role": "user", "content": [IMAGE]}]})
    assert reply.status == 400
    bill = seller.control.settled(reply.headers["x-request-id"])
    assert (bill.usage, bill.charge, bill.cost) == (UsageRecord(), 0, 0)


def test_what_a_strangers_machine_says_it_took_is_no_gpu_of_ours(seller: Any) -> None:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        answer = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word"}}
        told = {"id": "c", "created": 1, "model": "up-1", "choices": [answer], "usage": tokens(10, 1)}
        return web.json_response({**told, "timings": {"prompt_ms": 5.5, "predicted_ms": 100}})

    seller.upstream.script = script
    reply = post(seller, {"model": "sees", "messages": [{"role": "user", "content": "Hi"}]})
    bill = seller.control.settled(reply.headers["x-request-id"])
    assert (bill.usage.gpu_ms, bill.charge) == (0, 0)
    assert bill.reported == UsageRecord(input=10, output=1, gpu_ms=106)
