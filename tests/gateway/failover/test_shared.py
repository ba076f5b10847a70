"""Two gateways on one limit store: what one was refused, the other does not ask for: a key that rests, a pause."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx2
import msgspec
import pytest
from aiohttp import web
from tests.gateway.conftest import KEY, completion, running_gateway, wait_for
from tests.gateway.limits.conftest import LimitServer, started

from tokenworks.snapshot.records import CredentialRecord, PolicyRecord
from tokenworks.snapshot.sealing import fingerprint, read_cluster_key, seal

POLICY = PolicyRecord(retries=0, hedge=0)


@pytest.fixture(scope="module")
def server() -> Iterator[LimitServer]:
    with started() as made:
        yield made


@pytest.fixture
def two(servers: Any, server: LimitServer) -> Iterator[tuple[Any, Any]]:
    with ExitStack() as stack:
        made = [stack.enter_context(running_gateway(servers, "--limits", server.url)) for _ in range(2)]
        for gateway in made:
            gateway.upstream.script = by_key
            with_keys(gateway, "busy", "good")
        yield made[0], made[1]


async def by_key(request: web.Request, seen: Any) -> web.StreamResponse:
    """The key `busy`, and whoever asks for text, has to wait for a minute."""
    if request.headers.get("Authorization") == "Bearer busy" or request.path.endswith("/v1/completions"):
        error = {"error": {"message": "slower", "code": "rate_limit_exceeded"}}
        return web.json_response(error, status=429, headers={"retry-after": "60"})
    return await completion(request, seen)


def with_keys(gateway: Any, *secrets: str) -> None:
    """`upstream-a` has these; their ids are alike in all gateways, as with one cluster key."""
    state = gateway.control._state
    cluster = read_cluster_key(gateway.directory / "cluster.key")
    keys = tuple(CredentialRecord(fingerprint(bytes(32), each), seal(cluster, "upstream-a", each)) for each in secrets)
    upstream = msgspec.structs.replace(state.upstreams["upstream-a"], credentials=keys)
    models = {name: msgspec.structs.replace(model, policy=POLICY) for name, model in state.models.items()}
    models["keyed"] = msgspec.structs.replace(models["assistant"], name="keyed")
    upstreams = {**state.upstreams, upstream.id: upstream}
    gateway.control.publish(replace(state, revision=state.revision + 1, upstreams=upstreams, models=models))
    wait_for(lambda: post(gateway, "/v1/route:explain", "keyed").status_code == 200)


def post(gateway: Any, path: str, model: str = "assistant") -> httpx2.Response:
    body: dict[str, Any] = {"model": model}
    body |= {"prompt": "Hi"} if model == "texts" else {"messages": [{"role": "user", "content": "Hi"}]}
    return httpx2.post(f"{gateway.url}{path}", headers={"Authorization": f"Bearer {KEY}"}, json=body, timeout=20)


def told(gateway: Any) -> list[str]:
    """The keys that its upstream was told."""
    seen = [each for each in gateway.upstream.seen if each.path.endswith("/chat/completions")]
    return [each.headers.get("Authorization", "").removeprefix("Bearer ") for each in seen]


def paused(gateway: Any) -> float:
    explained = post(gateway, "/v1/route:explain?path=/v1/completions", "texts").json()
    return float(explained["models"][0]["candidates"][0]["paused_seconds"])


def test_what_one_was_refused_the_other_does_not_ask_for(two: tuple[Any, Any]) -> None:
    one, other = two
    wait_for(lambda: post(one, "/v1/chat/completions").status_code == 200 and "busy" in told(one))
    assert told(one)[-2:] == ["busy", "good"], "the next key is told within the same request"
    assert post(one, "/v1/completions", "texts").status_code == 503
    wait_for(lambda: paused(other) > 30)  # it was told after the key, so that is known, too
    assert [post(other, "/v1/chat/completions").status_code for _ in range(3)] == [200] * 3
    assert told(other) == ["good"] * 3
    refused = post(other, "/v1/completions", "texts")
    assert (refused.status_code, len(other.upstream.seen)) == (503, 3), "nobody was asked"
    assert 30 < int(refused.headers["retry-after"]) <= 60
