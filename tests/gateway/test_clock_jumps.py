"""Two gateways on one Valkey, one of which has its wall clock set days ahead and back while requests run.

Windows, budgets' months and leases are the store's: nothing is given twice, nothing is lost and nobody is locked out.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web
from tests.gateway.conftest import Gateway, chunk, completion, running_gateway, stream, wait_for
from tests.gateway.limits.conftest import LimitServer, started
from tests.gateway.skewed import set_ahead

from tokenworks.snapshot.records import LimitRecord

KEY = "sk-tw-test-key"
KEY_ID = f"key_{hashlib.sha256(KEY.encode()).hexdigest()[:8]}"
HOUR = 3_600
JUMPS = (5 * HOUR, -7 * HOUR, 40 * 24 * HOUR, -400 * 24 * HOUR, 0)
"""Seconds: over hours, days, months and years, and right at last."""
SKEWED = str(Path(__file__).with_name("skewed.py"))


CLIENT = httpx2.Client(timeout=20)


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    with CLIENT:
        yield


class Pair:
    """`skewed` and `right`, with the same limits."""

    def __init__(self, skewed: Gateway, right: Gateway, file: Path, server: LimitServer) -> None:
        self.skewed, self.right, self.file, self.server = skewed, right, file, server

    def enforce(self, *limits: LimitRecord) -> None:
        for gateway in (self.skewed, self.right):
            state = gateway.control._state
            gateway.control.publish(replace(state, limits={limit.name: limit for limit in limits}))
            wait_for(lambda gateway=gateway: revision(gateway) == gateway.control._publisher.state.revision)

    def jump(self, seconds: int) -> None:
        set_ahead(self.file, seconds)

    def ask(self, gateway: Gateway, **members: Any) -> httpx2.Response:
        body = {"model": "assistant", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 10, **members}
        headers = {"Authorization": f"Bearer {KEY}"}
        return CLIENT.post(f"{gateway.url}/v1/chat/completions", headers=headers, json=body)

    def statuses(self) -> list[int]:
        return [self.ask(gateway).status_code for gateway in (self.skewed, self.right)]


def revision(gateway: Gateway) -> int:
    told: int = CLIENT.get(f"{gateway.url}/readyz").json()["components"]["control"]["revision"]
    return told


@pytest.fixture(scope="module")
def pair(servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    file = tmp_path_factory.mktemp("clock") / "ahead"
    set_ahead(file, 0)
    with ExitStack() as stack:
        server = stack.enter_context(started())
        with server.client() as client:
            client.set("tw:born", "1")  # long ago: a store that is new knows of no budget for a while
        options = ("--limits", server.url, "--limits-wait", "0", "--limits-timeout", "5")
        skewed = stack.enter_context(running_gateway(servers, *options, program=(SKEWED, str(file))))
        right = stack.enter_context(running_gateway(servers, *options))
        yield Pair(skewed, right, file, server)


@pytest.fixture(autouse=True)
def fresh(pair: Pair) -> Iterator[None]:
    with pair.server.client() as client:
        client.delete(*client.keys("tw:c:*"), "nothing")
    yield
    pair.jump(0)
    for gateway in (pair.skewed, pair.right):
        gateway.upstream.script = completion


def test_the_clock_of_the_process_does_jump(pair: Pair) -> None:
    told = []
    for ahead in (0, JUMPS[2]):
        pair.jump(ahead)
        told.append(pair.skewed.control.opened(pair.ask(pair.skewed).headers["x-request-id"]).at)
    assert told[1] - told[0] >= JUMPS[2] * 10**9


@pytest.mark.parametrize(
    "limit",
    [
        LimitRecord("organization", "org_1", None, "spend_nano_usd", 70_000, period="total"),
        LimitRecord("key", KEY_ID, None, "requests", 4, window=30 * 24 * HOUR, strict=True),
        LimitRecord("project", "proj_1", None, "output_tokens", 17, window=30 * 24 * HOUR, strict=True),
        LimitRecord("model", "assistant", None, "spend_nano_usd", 70_000, period="month"),
    ],
    ids=lambda limit: f"{limit.kind} {limit.period}",
)
def test_no_window_opens_twice_and_no_budget_begins_anew(pair: Pair, limit: LimitRecord) -> None:
    pair.enforce(limit)
    answered = 0
    while (answer := pair.ask(pair.skewed)).status_code == 200:
        answered += 1
    assert 0 < answered < 30, answer.text
    for ahead in JUMPS:
        pair.jump(ahead)
        assert pair.statuses() == [429, 429], ahead
    more = replace_amount(limit, 10 * limit.limit)
    pair.enforce(more)
    for ahead in JUMPS:
        pair.jump(ahead)
        assert pair.statuses() == [200, 200], f"{ahead}: refused though there is room"


def replace_amount(limit: LimitRecord, amount: int) -> LimitRecord:
    return LimitRecord(limit.scope, limit.id, limit.model, limit.kind, amount, limit.window, limit.period, limit.strict)


def test_a_running_stream_keeps_its_lease_and_gives_it_back(pair: Pair) -> None:
    pair.enforce(LimitRecord("key", KEY_ID, None, "concurrency", 1))
    go_on = threading.Event()

    async def held(request: web.Request, seen: Any) -> web.StreamResponse:
        words = iter(range(10**6))

        def endless() -> Iterator[bytes]:
            while not go_on.is_set():
                yield chunk({"content": f"w{next(words)} "})
            yield chunk({}, finish="stop")
            yield b"data: [DONE]\n\n"

        return await stream(request, endless(), pause=0.01)  # type: ignore[arg-type]

    pair.skewed.upstream.script = held
    answers: list[httpx2.Response] = []
    running = threading.Thread(target=lambda: answers.append(pair.ask(pair.skewed, stream=True)))
    running.start()
    wait_for(lambda: pair.skewed.upstream.seen and pair.skewed.upstream.seen[-1].body.get("stream"))
    for ahead in JUMPS[:-1]:
        pair.jump(ahead)
        assert pair.statuses() == [429, 429], f"{ahead}: its lease is gone"
    go_on.set()
    running.join(20)
    assert answers[0].text.rstrip().endswith("data: [DONE]")
    pair.skewed.upstream.script = completion
    wait_for(lambda: pair.statuses() == [200, 200])
    with pair.server.client() as client:
        assert wait_for(lambda: client.zcard("tw:open") == 0), "nothing is held any more"
        assert not [key for key in client.keys("tw:l:*") if client.zcard(key)]


def test_what_ran_meanwhile_is_on_record_once(pair: Pair) -> None:
    pair.enforce()
    asked = []
    for ahead in JUMPS:
        pair.jump(ahead)
        asked.append(pair.ask(pair.skewed).headers["x-request-id"])
    for request_id in asked:
        settled = pair.skewed.control.settled(request_id)
        assert settled.outcome == "completed"
        assert settled.charge > 0
    assert len(set(asked)) == len(JUMPS), "a clock that is set back draws no id twice"
