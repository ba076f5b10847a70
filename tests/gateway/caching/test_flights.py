"""Equal requests at once through a real gateway: one goes upstream, the others get its answer and own bills."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import httpx2
import pytest
from aiohttp import web
from tests.gateway.caching.test_gateway import FELLOW, KEY, PRICED, STRANGER, ask, publish, told
from tests.gateway.conftest import answer_body, completion, wait_for

from tokenworks.gateway.caching.flights import Flights, Found, Outcome
from tokenworks.gateway.caching.stores import Kept

CALLERS = 6
FOUND = Found(Kept(0.0, [b"x"], "u", "m", 0, "stop", "", []))


class Gate:
    """An upstream that answers nobody before `open`."""

    def __init__(self, gateway: Any) -> None:
        self.gateway = gateway
        self._opened = threading.Event()
        self.scripts: list[Any] = []
        """What the first requests get; then all is well."""
        gateway.upstream.script = self._answer

    def open(self) -> None:
        self._opened.set()

    async def _answer(self, request: web.Request, seen: Any) -> web.StreamResponse:
        script = self.scripts.pop(0) if self.scripts else completion
        while not self._opened.is_set():  # noqa: ASYNC110 - it is set by another thread
            await asyncio.sleep(0.01)
        return await script(request, seen)

    def until_in_flight(self, number: int) -> None:
        def there() -> bool:
            text = httpx2.get(f"{self.gateway.url}/metrics").text
            (found,) = re.findall(r"^tokenworks_in_flight_requests ([\d.]+)$", text, re.M)
            return float(found) == number + 1  # this very call

        wait_for(there)


@pytest.fixture
def gate(gateway: Any) -> Iterator[Gate]:
    publish(gateway, cache=60, cache_price=0.5)
    made = Gate(gateway)
    yield made
    made.open()


async def refused(request: web.Request, seen: Any) -> web.StreamResponse:
    return web.json_response({"error": {"message": "no"}}, status=500)


async def filtered(request: web.Request, seen: Any) -> web.StreamResponse:
    body = answer_body("Hel")
    body["choices"][0]["finish_reason"] = "content_filter"
    return web.json_response(body)


@pytest.mark.parametrize("stream", [False, True])
def test_one_goes_upstream_and_the_others_wait_for_it(gate: Gate, stream: bool) -> None:
    keys = [KEY, FELLOW] * (CALLERS // 2) + [STRANGER] * 2
    with ThreadPoolExecutor(len(keys)) as callers:
        running = [callers.submit(ask, gate.gateway, f"at once {stream}", key, stream=stream) for key in keys]
        gate.until_in_flight(len(keys))
        gate.open()
        answers = [each.result() for each in running]
    assert len(gate.gateway.upstream.seen) == 2, "one of each project"
    assert sorted(map(str, map(told, answers[:CALLERS]))) == ["hit"] * (CALLERS - 1) + ["miss"]
    assert sorted(map(str, map(told, answers[CALLERS:]))) == ["hit", "miss"]
    assert len({each.headers["x-request-id"] for each in answers}) == len(keys)
    settled = [gate.gateway.control.settled(each.headers["x-request-id"]) for each in answers]
    prices = sorted(each.charge for each in settled)
    whole = prices[-1]
    assert prices == [whole // 2] * (len(keys) - 2) + [whole] * 2
    assert stream or whole == PRICED


def test_when_the_first_fails_another_one_asks(gate: Gate) -> None:
    gate.scripts = [refused]
    with ThreadPoolExecutor(CALLERS) as callers:
        running = [callers.submit(ask, gate.gateway, "fails") for _ in range(CALLERS)]
        gate.until_in_flight(CALLERS)
        gate.open()
        answers = [each.result() for each in running]
    assert sorted(each.status_code for each in answers) == [200] * (CALLERS - 1) + [502]
    assert len(gate.gateway.upstream.seen) == 2


def test_when_the_first_leaves_another_one_asks(gate: Gate) -> None:
    body = {"model": "assistant", "messages": [{"role": "user", "content": "leaves"}]}
    first = HTTPConnection(gate.gateway.url.removeprefix("http://"))
    first.request("POST", "/v1/chat/completions", json.dumps(body), {"Authorization": f"Bearer {KEY}"})
    with ThreadPoolExecutor(CALLERS) as callers:
        wait_for(lambda: gate.gateway.upstream.seen)
        running = [callers.submit(ask, gate.gateway, "leaves") for _ in range(CALLERS - 1)]
        gate.until_in_flight(CALLERS)
        first.close()
        wait_for(lambda: len(gate.gateway.upstream.seen) == 2)
        assert gate.gateway.upstream.seen[0].closed.wait(10)
        gate.open()
        answers = [each.result() for each in running]
    assert [each.status_code for each in answers] == [200] * (CALLERS - 1)
    assert len(gate.gateway.upstream.seen) == 2


def test_what_cannot_be_given_again_is_asked_by_everybody_at_once(gate: Gate) -> None:
    gate.scripts = [filtered] * CALLERS
    with ThreadPoolExecutor(CALLERS) as callers:
        running = [callers.submit(ask, gate.gateway, "filtered") for _ in range(CALLERS)]
        gate.until_in_flight(CALLERS)
        gate.open()
        answers = [each.result() for each in running]
    assert [told(each) for each in answers] == ["miss"] * CALLERS
    assert len(gate.gateway.upstream.seen) == CALLERS


def test_waiting_is_bounded_and_leaves_nothing_behind() -> None:
    async def run() -> None:
        flights = Flights()
        assert await flights.first("a", 10.0) == (True, None)
        assert await flights.first("b", 10.0) == (True, None), "another key"
        assert await flights.first("a", 0.01) == (False, None)
        waiting = [asyncio.create_task(flights.first("a", 10.0)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        flights.land("a", Outcome.FAILED)
        done, rest = await asyncio.wait(waiting[1:], return_when=asyncio.FIRST_COMPLETED)
        assert [each.result() for each in done] == [(True, None)]
        flights.land("a", FOUND)
        assert await asyncio.gather(*rest) == [(False, FOUND)]
        await asyncio.wait(waiting)
        flights.land("b", Outcome.UNIQUE)
        assert len(flights) == 0

    asyncio.run(run())
