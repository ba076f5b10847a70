"""A real gateway whose limit store is killed, paused, flushed; and one that is killed with usage unshipped."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from tests.gateway.conftest import running_gateway, wait_for
from tests.gateway.limits.conftest import LimitServer, started

from tokenworks.snapshot.records import LimitRecord

KEY = "sk-tw-test-key"
KEY_ID = f"key_{hashlib.sha256(KEY.encode()).hexdigest()[:8]}"
CLIENT = httpx2.Client(timeout=20)
PLAIN = LimitRecord("key", KEY_ID, None, "requests", 1_000, window=86_400)
BUDGET = LimitRecord("project", "proj_1", None, "spend_nano_usd", 10**12, period="total")


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    with CLIENT:
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[LimitServer]:
    with started() as made:
        yield made


@pytest.fixture(scope="module")
def shared(servers: Any, server: LimitServer) -> Iterator[Any]:
    with running_gateway(servers, "--limits", server.url, "--limits-timeout", "0.3", "--limits-wait", "3") as gateway:
        yield gateway


def enforce(gateway: Any, *limits: LimitRecord) -> None:
    gateway.control.publish(replace(gateway.control._state, limits={limit.name: limit for limit in limits}))
    time.sleep(0.3)


def ask(gateway: Any, **members: Any) -> httpx2.Response:
    body = {"model": "assistant", "messages": [{"role": "user", "content": "Hi"}], **members}
    headers = {"Authorization": f"Bearer {KEY}"}
    return CLIENT.post(f"{gateway.url}/v1/chat/completions", headers=headers, json=body)


def settled(server: LimitServer) -> None:
    """A settlement is sent before the answer's end, but not waited for."""
    with server.client() as client:
        wait_for(lambda: client.zcard("tw:open") == 0)


def ready(gateway: Any) -> Any:
    return CLIENT.get(f"{gateway.url}/readyz").json()


def degraded_metric(gateway: Any) -> str:
    lines = CLIENT.get(f"{gateway.url}/metrics").text.splitlines()
    return next(line for line in lines if line.startswith("tokenworks_limits_degraded "))


def healthy(gateway: Any) -> bool:
    return ready(gateway)["components"]["limits"] == {"ok": True}


def test_a_killed_store_is_told_everywhere_and_comes_back_without_a_restart(shared: Any, server: LimitServer) -> None:
    enforce(shared, PLAIN)
    assert "x-tokenworks-limits" not in ask(shared).headers
    server.kill()
    plain = ask(shared)
    assert (plain.status_code, plain.headers["x-tokenworks-limits"]) == (200, "degraded")
    assert ready(shared)["status"] == "degraded"
    assert "store does not answer" in ready(shared)["components"]["limits"]["reason"]
    assert degraded_metric(shared).endswith(" 1.0")
    enforce(shared, PLAIN, BUDGET)
    refused = ask(shared)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "limit_store_unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    server.start()
    wait_for(lambda: healthy(shared))
    assert ask(shared).status_code == 200
    assert degraded_metric(shared).endswith(" 0.0")
    settled(server)
    with server.client() as client:
        (count,) = [int(client.hget(key, "u")) for key in client.keys("tw:c:*requests*")]
    assert count == 2, "what was let in while the store was away is not charged to it; nothing is charged twice"


def test_a_store_that_hangs_is_a_bounded_wait_and_leaves_no_stuck_key(shared: Any, server: LimitServer) -> None:
    enforce(shared, PLAIN, LimitRecord("key", KEY_ID, None, "concurrency", 1))
    wait_for(lambda: healthy(shared))
    with server.client() as client:
        client.execute_command("CLIENT", "PAUSE", 5_000, "ALL")
    answers = [ask(shared) for _ in range(10)]
    assert {answer.status_code for answer in answers} == {200}
    assert answers[0].headers["x-tokenworks-limits"] == "degraded", "it did not wait for the store to go on"
    wait_for(lambda: healthy(shared), timeout=20)
    for _ in range(3):
        assert ask(shared).status_code == 200, "the lease of the request that hung was given back"


def test_flushed_functions_and_scripts_go_unnoticed(shared: Any, server: LimitServer) -> None:
    enforce(shared, PLAIN, BUDGET)
    wait_for(lambda: healthy(shared))
    with server.client() as client:
        client.execute_command("FUNCTION", "FLUSH")
        client.script_flush()
    answer = ask(shared)
    assert answer.status_code == 200
    assert "x-tokenworks-limits" not in answer.headers


def test_a_flushed_store_lets_budgets_wait_until_it_knows_again(shared: Any, server: LimitServer) -> None:
    enforce(shared, BUDGET)
    charged = ask(shared)
    assert charged.status_code == 200
    settled(server)
    with server.client() as client:
        before = int(client.hgetall(next(iter(client.keys("tw:c:*spend*"))))[b"u"])
        client.flushall()
    answer = ask(shared)
    assert answer.status_code == 200, "within --limits-wait it was let in"
    cost = int(answer.headers["x-tokenworks-cost-nano-usd"])
    settled(server)
    with server.client() as client:
        (count,) = [int(client.hget(key, "u")) for key in client.keys("tw:c:*spend*")]
    assert count == before + cost, "what this gateway had charged, and the new request"


def test_a_killed_gateway_remembers_what_it_had_charged(servers: Any) -> None:
    """With limits in its own memory, while control is away."""
    with running_gateway(servers) as gateway:
        enforce(gateway, replace_limit(BUDGET, 43_000))
        saved = gateway.directory / "gateway" / "snapshot.bin"
        wait_for(lambda: saved.exists() and b"spend_nano_usd" in saved.read_bytes())
        gateway.control.stop()
        statuses = [ask(gateway).status_code for _ in range(10)]
        assert statuses[0] == 200
        assert statuses[-1] == 429
        gateway.process.kill()
        gateway.process.wait()
        gateway.restart()
        assert wait_for(lambda: (told := ask(gateway).status_code) != 503 and told) == 429
        gateway.control.start()


def replace_limit(limit: LimitRecord, amount: int) -> LimitRecord:
    return LimitRecord(limit.scope, limit.id, None, limit.kind, amount, period=limit.period)
