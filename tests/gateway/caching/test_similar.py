"""Answers to what was asked in other words, through real gateways; an upstream embeds texts by their words."""

import asyncio
import hashlib
import math
import re
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from aiohttp import web
from anthropic import Anthropic
from tests.gateway.caching.test_gateway import FELLOW, KEY, STRANGER, UNSTORABLE, ask, publish, told
from tests.gateway.conftest import completion, running_gateway, wait_for
from tests.gateway.limits.conftest import started

from tokenworks.gateway.caching.stores import ENTRY_BYTES, MOST_NOTES, NOTES, MemoryStore
from tokenworks.snapshot.records import (
    CacheRecord,
    LimitsRecord,
    ModelRecord,
    PriceRecord,
    TargetRecord,
    UpstreamRecord,
)

SIZE = 64
ASKED, ALIKE = "what is the capital of france please tell me", "what is the capital of france please tell us"
OTHER = "write a poem about the sea"
PRICE = PriceRecord({"input": 1_000_000_000, "output": 0}, id="embedding")


def vector(text: str) -> list[float]:
    values = [0.0] * SIZE
    for word in text.split():
        values[hashlib.sha256(word.encode()).digest()[0] % SIZE] += 1.0
    return values


def cosine(one: str, other: str) -> float:
    a, b = vector(one), vector(other)
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


async def embedding_too(request: web.Request, seen: Any) -> web.StreamResponse:
    if not request.path.endswith("/embeddings"):
        return await completion(request, seen)
    if seen.body["model"] == "broken":
        return web.json_response({"error": {"message": "no"}}, status=500)
    data = [{"object": "embedding", "index": 0, "embedding": vector(seen.body["input"])}]
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    return web.json_response({"object": "list", "model": "e", "data": data, "usage": usage})


def semantic(gateway: Any, *, wish: CacheRecord | None = None, embedder: str = "embedder", **policy: Any) -> None:
    publish(
        gateway, **{"cache": 60, "semantic_model": embedder, "semantic_threshold": 0.8, "cache_price": 0.5} | policy
    )
    state = gateway.control._state
    port = gateway.upstream.port
    upstream = UpstreamRecord("upstream-e", "upstream-e", ("openai_embeddings",), f"http://127.0.0.1:{port}/v1")
    models = {
        name: ModelRecord(name, 1, (TargetRecord("upstream-e", name),), LimitsRecord(), (PRICE,))
        for name in ("embedder", "broken", f"at-{state.revision}")
    }
    gateway.control.publish(
        replace(
            state,
            revision=state.revision + 1,
            models={**state.models, **models},
            upstreams={**state.upstreams, upstream.id: upstream},
            caches={} if wish is None else {wish.project_id: wish},
        )
    )
    listed = {"url": f"{gateway.url}/v1/models", "headers": {"Authorization": f"Bearer {KEY}"}}
    wait_for(lambda: f'"at-{state.revision}"' in httpx2.get(**listed).text)
    gateway.upstream.script = embedding_too


@pytest.fixture
def alike(gateway: Any) -> Any:
    semantic(gateway)
    return gateway


def similarity(response: httpx2.Response) -> float | None:
    found = re.fullmatch(r"semantic; similarity=(0\.\d{4})", told(response) or "")
    return float(found[1]) if found else None


def chats(gateway: Any) -> int:
    return sum(each.path.endswith("/chat/completions") for each in gateway.upstream.seen)


def test_a_similar_question_gets_the_answer_and_says_how_similar(alike: Any) -> None:
    first, second = ask(alike, ASKED), ask(alike, ALIKE, FELLOW)
    assert told(first) == "miss"
    assert similarity(second) == pytest.approx(cosine(ASKED, ALIKE), abs=1e-4)
    assert second.headers["x-tokenworks-provider"] == "cache"
    assert second.json()["choices"] == first.json()["choices"]
    assert chats(alike) == 1
    assert told(ask(alike, OTHER)) == "miss"
    assert told(ask(alike, ASKED)) == "hit"


def test_who_pays_for_what(alike: Any) -> None:
    first, second = (ask(alike, text, temperature=0.1) for text in (ASKED, ALIKE))
    charges = [alike.control.settled(each.headers["x-request-id"]).charge for each in (first, second)]
    assert charges[1] == charges[0] // 2
    embedded = [r for r in alike.control.records if getattr(r, "model", "") == "embedder"]
    assert {each.project_id for each in embedded} == {"proj_1"}
    settled = [alike.control.settled(each.request_id) for each in embedded]
    assert {(each.usage.input, each.charge) for each in settled} == {(9, 9 * 1000)}


def test_everything_but_the_last_message_must_be_the_same(alike: Any) -> None:
    assert told(ask(alike, ASKED + " 2", temperature=0.5)) == "miss"
    assert told(ask(alike, ALIKE + " 2", temperature=0.6)) == "miss"
    assert told(ask(alike, ALIKE + " 2", STRANGER, temperature=0.5)) == "miss", "another project"
    assert told(ask(alike, ALIKE + " 2", model="org/with/slashes", temperature=0.5)) == "miss"
    assert told(ask(alike, ALIKE + " 2", temperature=0.5, stream=True)) == "miss"
    earlier = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ALIKE + " 2"}]
    assert told(ask(alike, "", temperature=0.5, messages=earlier)) == "miss"
    assert similarity(ask(alike, ALIKE + " 2 ", temperature=0.5))


def test_tools_pictures_and_heat_are_only_answered_to_the_very_same(alike: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    picture = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    for number, more in enumerate(({"tools": tools}, {"n": 2}, {"temperature": 1.5})):
        asked = [ask(alike, f"{text} 3{number}", **more) for text in (ASKED, ALIKE)]
        assert [told(each) for each in asked] == ["miss", "miss"]
    for text in (ASKED, ALIKE):
        content = [{"type": "text", "text": text + " 39"}, *picture]
        assert told(ask(alike, "", messages=[{"role": "user", "content": content}])) == "miss"
    assert not [each for each in alike.upstream.seen if each.path.endswith("/embeddings")]


def test_streams_and_the_other_protocol_have_it_too(alike: Any) -> None:
    told_of = [ask(alike, text + " 4", stream=True) for text in (ASKED, ALIKE)]
    assert similarity(told_of[1])
    assert told_of[1].text.endswith("data: [DONE]\n\n")
    with Anthropic(base_url=alike.url, api_key=KEY, max_retries=0) as messages:
        for text in (ASKED, ALIKE):
            asked: Any = [{"role": "user", "content": text + " 5"}]
            got = messages.messages.with_raw_response.create(model="assistant", max_tokens=9, messages=asked)
        assert got.headers["x-tokenworks-cache"].startswith("semantic; similarity=0.")


def test_request_before_project_before_policy(alike: Any) -> None:
    ask(alike, ASKED + " 6")
    header = "x-tokenworks-cache-similarity"

    near = ask(alike, ALIKE + " 6", headers={header: "0.99"})
    assert told(near) == "miss"
    assert told(ask(alike, ALIKE + " 6 x", headers={header: "off"})) == "miss"
    wrong = ask(alike, ALIKE + " 6", headers={header: "much"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, header)
    semantic(alike, wish=CacheRecord("proj_1", similarity=0.0))
    assert [told(ask(alike, text + " 7")) for text in (ASKED, ALIKE)] == ["miss", "miss"]
    assert similarity(ask(alike, ALIKE + " 7 y", headers={header: ".8"}))
    semantic(alike, semantic_threshold=0.0, wish=CacheRecord("proj_1", similarity=0.8))
    assert similarity([ask(alike, text + " 8") for text in (ASKED, ALIKE)][1])
    semantic(alike, semantic_threshold=0.0)
    assert [told(ask(alike, text + " 9")) for text in (ASKED, ALIKE)] == ["miss", "miss"]


def test_a_project_opts_in_and_out_within_what_the_policy_allows(alike: Any) -> None:
    semantic(alike, cache=0, cache_max=60, semantic_threshold=0.0, wish=CacheRecord("proj_1", 30))
    assert [told(ask(alike, "own wish")) for _ in range(2)] == ["miss", "hit"]
    assert [told(ask(alike, "own wish", STRANGER)) for _ in range(2)] == [None, None], "the other project did not"
    semantic(alike, cache=60, semantic_threshold=0.0, wish=CacheRecord("proj_1", 0))
    assert [told(ask(alike, "opted out")) for _ in range(2)] == [None, None]
    assert told(ask(alike, "own wish", headers={"x-tokenworks-cache": "60"})) == "hit"
    semantic(alike, cache=0, cache_max=0, semantic_threshold=0.0, wish=CacheRecord("proj_1", 30))
    assert told(ask(alike, "own wish")) is None, "the operator allows none"


def test_who_cannot_embed_costs_a_miss_and_nothing_else(alike: Any) -> None:
    for embedder in ("broken", "nobody"):
        semantic(alike, embedder=embedder)
        asked = [ask(alike, f"{text} {embedder}") for text in (ASKED, ALIKE)]
        assert [(each.status_code, told(each)) for each in asked] == [(200, "miss"), (200, "miss")]


def test_what_may_not_be_stored_is_not_compared(alike: Any) -> None:
    ask(alike, ASKED + " 10")
    state = alike.control._state
    alike.control.publish(replace(state, revision=state.revision + 1, residency={"proj_1": UNSTORABLE}))
    wait_for(lambda: told(ask(alike, ALIKE + " 10")) is None)


def test_gateways_share_them_and_their_number_is_bounded(servers: Any) -> None:
    with started() as server, ExitStack() as stack:
        one, other = (
            stack.enter_context(running_gateway(servers, "--limits", server.url, secret="5" * 64)) for _ in range(2)
        )
        for gateway in (one, other):
            semantic(gateway)
        assert told(ask(one, ASKED)) == "miss"
        with server.client() as client:
            (name,) = wait_for(lambda: client.keys(NOTES + "*"))
            assert similarity(ask(other, ALIKE))
            assert 0 < client.ttl(name) <= 60
            client.rpush(name, *([b"damaged"] * 500))
            assert similarity(ask(one, ALIKE)), "what is no note is passed over"
            ask(one, "something else altogether")
            wait_for(lambda: client.llen(name) == MOST_NOTES)


def test_notes_in_memory_are_bounded_in_number_and_bytes() -> None:
    async def run() -> None:
        store = MemoryStore(ENTRY_BYTES + MOST_NOTES * 10)
        for number in range(MOST_NOTES + 5):
            await store.note("p", b"%010d" % number, 60)
        notes = await store.notes("p")
        assert (len(notes), notes[0]) == (MOST_NOTES, b"%010d" % (MOST_NOTES + 4))
        assert await store.get(NOTES + "p") is None
        assert store.size <= ENTRY_BYTES + MOST_NOTES * 10

    asyncio.run(run())
