"""The cache of answers through real gateways: what is given again, to whom, for how long, and at which price."""

import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx2
import msgspec
import pytest
from aiohttp import web
from anthropic import Anthropic
from openai import OpenAI
from tests.gateway.conftest import chunk, completion, key_record, running_gateway, state_for, stream, wait_for
from tests.gateway.limits.conftest import LimitServer, started

from tokenworks.snapshot.records import LimitRecord, ResidencyRecord
from tokenworks.snapshot.state import State

KEY, FELLOW, STRANGER = "sk-tw-test-key", "sk-tw-fellow", "sk-tw-stranger"
KEY_ID = f"key_{hashlib.sha256(KEY.encode()).hexdigest()[:8]}"
PRICED = 12 * 150 + 3 * 600
"""Nano-dollars of one whole answer of `assistant`."""


UNSTORABLE = ResidencyRecord("proj_1", retention=0)
"""Nobody states for how long the cache keeps what it has."""


def publish(gateway: Any, *limits: LimitRecord, **policy: Any) -> None:
    """These words of the policy for every model, two projects, and these limits."""
    old = gateway.control._state
    models = [
        msgspec.structs.replace(model, policy=msgspec.structs.replace(model.policy, **policy))
        for model in state_for(gateway.upstream.port).models.values()
    ]
    stranger = msgspec.structs.replace(key_record(STRANGER), project_id="proj_2")
    state = State.of(
        revision=old.revision + 1,
        keys=[key_record(KEY), key_record(FELLOW), stranger],
        models=models,
        upstreams=list(old.upstreams.values()),
    )
    gateway.control.publish(replace(state, limits={limit.name: limit for limit in limits}))
    time.sleep(0.2)


@pytest.fixture
def cached(gateway: Any) -> Any:
    publish(gateway, cache=60)
    return gateway


def ask(
    gateway: Any, text: str, key: str = KEY, headers: dict[str, str] | None = None, **members: Any
) -> httpx2.Response:
    body = {"model": "assistant", "messages": [{"role": "user", "content": text}], **members}
    said = {"Authorization": f"Bearer {key}", **(headers or {})}
    return httpx2.post(f"{gateway.url}/v1/chat/completions", headers=said, json=body, timeout=20)


def told(response: httpx2.Response) -> str | None:
    found: str | None = response.headers.get("x-tokenworks-cache")
    return found


def test_the_second_answer_comes_from_the_cache_under_an_id_of_its_own(cached: Any) -> None:
    first, fellow, third = ask(cached, "twice"), ask(cached, "twice", FELLOW, user="u"), ask(cached, "twice")
    assert [told(each) for each in (first, fellow, third)] == ["miss", "hit", "hit"]
    assert len(cached.upstream.seen) == 1
    assert "age" not in first.headers
    assert 0 <= int(third.headers["age"]) < 60
    assert third.headers["x-tokenworks-provider"] == "cache"
    assert third.headers["x-tokenworks-model"] == "model-1"
    assert len({each.json()["id"] for each in (first, fellow, third)}) == 3
    assert third.json()["id"] == f"chatcmpl-{third.headers['x-request-id']}"
    plain = [{**each.json(), "id": "", "usage": {}} for each in (first, third)]
    assert plain[0] == plain[1]


def test_a_stream_is_played_again_byte_by_byte(cached: Any) -> None:
    members = {"model": "org/with/slashes", "stream": True, "stream_options": {"include_usage": True}}
    first, second = (ask(cached, "stream", **members) for _ in range(2))
    assert (told(first), told(second)) == ("miss", "hit")
    new = f"chatcmpl-{second.headers['x-request-id']}".encode()
    assert second.content.count(new) == 6
    assert second.content.replace(new, b"chatcmpl-up") == first.content
    assert told(ask(cached, "stream", model="org/with/slashes")) == "miss", "a whole answer is another"
    assert len(cached.upstream.seen) == 2


def test_official_clients_and_the_other_protocol_get_hits(cached: Any) -> None:
    asked: Any = [{"role": "user", "content": "official"}]
    with (
        OpenAI(base_url=f"{cached.url}/v1", api_key=KEY, max_retries=0) as chat,
        Anthropic(base_url=cached.url, api_key=KEY, max_retries=0) as messages,
    ):
        for _ in range(2):
            with chat.chat.completions.create(model="assistant", messages=asked, stream=True) as pieces:
                said = [each.choices[0].delta.content or "" for each in pieces if each.choices]
            assert "".join(said) == "Hello there!"
            with messages.messages.stream(model="assistant", max_tokens=9, messages=asked) as running:
                assert running.get_final_text() == "Hello there!"
            assert len(cached.upstream.seen) == 2


def test_nothing_crosses_projects(cached: Any) -> None:
    assert [told(ask(cached, "mine", key)) for key in (KEY, STRANGER, KEY, STRANGER)] == ["miss", "miss", "hit", "hit"]


def test_it_ends_with_its_time_and_callers_may_want_it_fresher(cached: Any) -> None:
    assert [told(ask(cached, "time")) for _ in range(2)] == ["miss", "hit"]
    publish(cached, cache=1)
    wait_for(lambda: told(ask(cached, "time")) == "miss")
    publish(cached, cache=60)
    assert told(ask(cached, "fresh")) == "miss"
    assert told(ask(cached, "fresh", headers={"x-tokenworks-cache": "0"})) is None
    assert told(ask(cached, "fresh", headers={"x-tokenworks-cache": "off"})) is None
    assert told(ask(cached, "fresh", headers={"x-tokenworks-cache": "30"})) == "hit"


def test_callers_get_no_more_than_the_policy_lets_them(cached: Any) -> None:
    wanted = {"x-tokenworks-cache": "60"}
    publish(cached, cache=0)
    assert [told(ask(cached, "wish", headers=wanted)) for _ in range(2)] == [None, None]
    publish(cached, cache=0, cache_max=60)
    assert [told(ask(cached, "wish", headers=said)) for said in (None, wanted, wanted, None)] == [
        None, "miss", "hit", None
    ]  # fmt: skip
    publish(cached, cache=0, cache_max=1)
    assert wait_for(lambda: told(ask(cached, "wish", headers=wanted)) == "miss"), "clamped to a second"
    wrong = ask(cached, "wish", headers={"x-tokenworks-cache": "soon"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-tokenworks-cache")


def test_errors_cut_and_filtered_answers_are_never_kept(cached: Any) -> None:
    async def refused(request: web.Request, seen: Any) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=500)

    async def cut(request: web.Request, seen: Any) -> web.StreamResponse:
        return await stream(request, [chunk({"content": "Hel"})])

    async def filtered(request: web.Request, seen: Any) -> web.StreamResponse:
        return await stream(
            request, [chunk({"content": "Hel"}), chunk({}, finish="content_filter"), b"data: [DONE]\n\n"]
        )

    for number, script in enumerate((refused, cut, filtered)):
        cached.upstream.script = script
        ask(cached, f"bad {number}", stream=True)
        cached.upstream.script = completion
        assert told(ask(cached, f"bad {number}", stream=True)) == "miss"
        assert told(ask(cached, f"bad {number}", stream=True)) == "hit"


def test_an_answer_that_a_limit_ended_is_never_kept(cached: Any) -> None:
    words = [f"word{number} " for number in range(400)]

    async def long(request: web.Request, seen: Any) -> web.StreamResponse:
        pieces = [chunk({"content": word}) for word in words]
        return await stream(request, [*pieces, chunk({}, finish="stop"), b"data: [DONE]\n\n"])

    cached.upstream.script = long
    budget = LimitRecord("project", "proj_1", None, "spend_nano_usd", 600 * 100, period="total")
    publish(cached, budget, cache=60)
    ended = ask(cached, "long", stream=True)
    assert "word0" in ended.text
    assert "word399" not in ended.text
    publish(cached, cache=60)
    assert told(ask(cached, "long", stream=True)) == "miss"


def test_who_may_not_answer_any_more_does_not_from_the_cache(cached: Any) -> None:
    assert told(ask(cached, "moved")) == "miss"
    state = cached.control._state
    model = state.models["assistant"]
    moved = msgspec.structs.replace(model, targets=(msgspec.structs.replace(model.targets[0], model="model-9"),))
    cached.control.publish(replace(state, models={**state.models, "assistant": moved}))
    time.sleep(0.2)
    assert told(ask(cached, "moved")) == "miss"
    assert cached.upstream.seen[-1].body["model"] == "model-9"


def test_a_project_whose_answers_may_not_be_stored_has_no_cache(cached: Any) -> None:
    plain = cached.control._state
    for policy, found in ((ResidencyRecord("proj_1", retention=None), "hit"), (UNSTORABLE, None)):
        cached.control.publish(replace(plain, residency={"proj_1": policy}))
        time.sleep(0.2)
        assert [told(ask(cached, "stored")) for _ in range(2)][1] == found
    cached.control.publish(plain)
    time.sleep(0.2)


@pytest.mark.parametrize(("share", "price"), [(0, 0), (0.25, PRICED // 4)])
def test_a_hit_is_a_request_at_the_stated_share_of_the_first_price(cached: Any, share: float, price: int) -> None:
    publish(cached, cache=60, cache_price=share)
    first, second = (ask(cached, f"price {share}") for _ in range(2))
    assert told(second) == "hit"
    assert first.json()["usage"]["cost_nano_usd"] == PRICED
    assert second.json()["usage"]["cost_nano_usd"] == price
    assert int(second.headers["x-tokenworks-cost-nano-usd"]) == price
    request_id = second.headers["x-request-id"]
    opened, settled = cached.control.opened(request_id), cached.control.settled(request_id)
    assert (opened.provider, opened.upstream, opened.upstream_model) == ("cache", "cache", "model-1")
    assert (settled.outcome, settled.charge, settled.cost, settled.price) == ("completed", price, 0, "cache")
    assert (settled.usage.usage().total, settled.usage.priced_requests, settled.finish_reason) == (0, 1, "stop")
    streams = [ask(cached, f"streamed {share}", stream=True, stream_options={"include_usage": True}) for _ in range(2)]
    was, now = (int(re.findall(r'"cost_nano_usd":(\d+)', each.text)[-1]) for each in streams)
    assert now == int(was * share) == cached.control.settled(streams[1].headers["x-request-id"]).charge


def test_hits_count_as_requests_but_not_as_tokens(cached: Any) -> None:
    requests = LimitRecord("key", KEY_ID, None, "requests", 3, window=86_400)
    publish(cached, requests, cache=60)
    assert [ask(cached, "counted").status_code for _ in range(4)] == [200, 200, 200, 429]
    tokens = LimitRecord("key", KEY_ID, None, "input_tokens", 100, window=86_401)
    publish(cached, tokens, cache=60)
    assert [told(ask(cached, "tokens")) for _ in range(12)] == ["miss", *["hit"] * 11], "12 of 12 tokens each were 144"


@pytest.fixture(scope="module")
def server() -> Iterator[LimitServer]:
    with started() as made:
        yield made


def test_gateways_share_what_they_keep_and_live_without_it(servers: Any, server: LimitServer) -> None:
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(
                running_gateway(servers, "--limits", server.url, "--limits-timeout", "0.3", secret="5" * 64)
            )
            for _ in range(2)
        )
        for gateway in (one, other):
            publish(gateway, cache=60)
        first = ask(one, "shared")
        assert told(first) == "miss"
        hit = wait_for(lambda: (found := ask(other, "shared"), told(found) == "hit")[1] and found)
        assert hit.json()["choices"] == first.json()["choices"]
        with server.client() as client:
            (name,) = client.keys("tw:cache:*")
            assert 0 < client.ttl(name) <= 60
            client.set(name, b"damaged")
        assert told(ask(other, "shared")) == "miss"
        server.kill()
        assert [(ask(one, "shared").status_code, told(ask(one, "shared"))) for _ in range(2)] == [(200, "miss")] * 2
        assert one.log().count("the server of the cache is away") == 1
        server.start()
        wait_for(lambda: told(ask(one, "shared")) == "hit")
