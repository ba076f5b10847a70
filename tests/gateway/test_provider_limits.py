"""Limits and budgets on a provider, of every kind: never exceeded, and then the model's other target answers."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx2
import msgspec
import pytest
from aiohttp import web
from tests.gateway.conftest import completion, wait_for

from tokenworks.journal.records import Settled
from tokenworks.snapshot.records import LimitRecord, TargetRecord, UpstreamRecord

KEY = "sk-tw-test-key"
DAY = 86_400
LIMITS = {"requests": 3, "input_tokens": 190, "output_tokens": 40, "tokens": 250, "uncached_input_tokens": 190}
LIMITS["spend_nano_usd"] = 90_000
"""Each leaves room for a few requests, whose worst case is reserved and whose real use is counted."""


def amount(settled: Settled, kind: str) -> int:
    usage = settled.usage
    read, written = usage.input + usage.cached_input, usage.output
    return {
        "requests": 1,
        "input_tokens": read,
        "output_tokens": written,
        "tokens": read + written,
        "uncached_input_tokens": usage.input,
        "spend_nano_usd": settled.charge,
    }[kind]


CLIENT = httpx2.Client(timeout=20)


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    with CLIENT:
        yield


@pytest.fixture
def limited(gateway: Any) -> Iterator[Callable[..., None]]:
    """Puts limits in force for the models `both`, of two providers, and `one`, of the first."""
    plain = gateway.control._state
    first = plain.upstreams["upstream-a"]
    second = UpstreamRecord("upstream-b", "upstream-b", first.protocols, first.base_url)
    assistant = plain.models["assistant"]
    targets = (TargetRecord("upstream-a", "of-a"), TargetRecord("upstream-b", "of-b"))
    both = msgspec.structs.replace(assistant, name="both", targets=targets, default=False)
    one = msgspec.structs.replace(assistant, name="one", targets=targets[:1], default=False)

    def enforce(*limits: LimitRecord) -> None:
        gateway.control.publish(
            replace(
                plain,
                models={**plain.models, "both": both, "one": one},
                upstreams={**plain.upstreams, "upstream-b": second},
                limits={limit.name: limit for limit in limits},
            )
        )
        revision = gateway.control._publisher.state.revision
        wait_for(lambda: CLIENT.get(f"{gateway.url}/readyz").json()["components"]["control"]["revision"] == revision)

    yield enforce
    gateway.control.publish(plain)


def ask(gateway: Any, model: str = "both") -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
    headers = {"Authorization": f"Bearer {KEY}"}
    return CLIENT.post(f"{gateway.url}/v1/chat/completions", headers=headers, json=body)


def provider_of(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers["x-tokenworks-provider"]


@pytest.mark.parametrize("kind", LIMITS)
def test_a_provider_gives_its_share_and_then_the_next_one_answers(gateway: Any, limited: Any, kind: str) -> None:
    window = {"period": "month"} if kind == "spend_nano_usd" else {"window": DAY + 7}
    limited(LimitRecord("provider", "upstream-a", None, kind, LIMITS[kind], strict=True, **window))
    bought = []
    while provider_of(answer := ask(gateway)) == "upstream-a":
        bought.append(amount(gateway.control.settled(answer.headers["x-request-id"]), kind))
        assert sum(bought) <= LIMITS[kind]
    assert len(bought) >= 2
    alone = ask(gateway, "one")
    assert (alone.status_code, alone.json()["error"]["code"]) == (503, "provider_limit_reached")
    assert "provider upstream-a" in alone.json()["error"]["message"]
    assert int(alone.headers["retry-after"]) > 0
    assert not any(name.startswith("x-ratelimit") for name in answer.headers), "what we may buy is nobody's business"


def test_a_provider_that_has_as_much_to_do_as_it_may_leaves_the_rest_to_the_next(gateway: Any, limited: Any) -> None:
    limited(LimitRecord("provider", "upstream-a", None, "concurrency", 2))
    go_on = asyncio.Event()

    async def held(request: web.Request, seen: Any) -> web.StreamResponse:
        await go_on.wait()
        return await completion(request, seen)

    gateway.upstream.script = held
    with ThreadPoolExecutor(5) as callers:
        asked = [callers.submit(ask, gateway) for _ in range(5)]
        wait_for(lambda: len(gateway.upstream.seen) == 5)
        gateway.upstream._loop.call(_set(go_on))
        answered = Counter(provider_of(each.result()) for each in asked)
    assert answered == {"upstream-a": 2, "upstream-b": 3}
    assert provider_of(ask(gateway)) == "upstream-a", "its leases came back"


async def _set(event: asyncio.Event) -> None:
    event.set()
