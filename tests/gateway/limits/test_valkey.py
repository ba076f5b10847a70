"""The shared store: it decides as the in-process one does, and holds across processes, flushes and restarts."""

import asyncio
import contextlib
import multiprocessing
import random
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.core.clock import ManualClock
from tokenworks.core.errors import Unavailable
from tokenworks.core.windows import FOREVER
from tokenworks.gateway.admission.limits.base import LARGEST, Claim
from tokenworks.gateway.admission.limits.memory import MemoryStore
from tokenworks.gateway.admission.limits.valkey import ValkeyStore

DAY = 86_400
BUCKETS = [("requests", 5, DAY, False), ("tokens", 60, FOREVER, False), ("running", 3, FOREVER, True)]

amounts = st.dictionaries(st.integers(0, 2), st.integers(1, 40), min_size=1)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), amounts),
        st.tuples(st.just("extend"), st.integers(0, 30), st.integers(1, 30)),
        st.tuples(st.just("settle"), st.integers(0, 30), st.integers(0, 60)),
        st.tuples(st.just("renew"), st.integers(0, 30)),
    ),
    max_size=40,
)


def claims(chosen: dict[int, int], run: str) -> list[Claim]:
    rows = [(BUCKETS[number], amount) for number, amount in sorted(chosen.items())]
    return [Claim(f"{run}:{b}", 1 if lease else n, limit, window, lease=lease) for (b, limit, window, lease), n in rows]


async def play(store: Any, script: list[Any], run: str) -> list[Any]:
    """What a store answers to a script; both stores must answer the same."""
    answers: list[Any] = []
    granted: list[str] = []
    settled: set[str] = set()
    for number, (verb, *rest) in enumerate(script):
        if verb == "reserve":
            refusal = (await store.reserve(f"{run}-{number}", claims(rest[0], run), 600)).refusal
            answers.append((refusal.bucket, refusal.limit, refusal.used) if refusal else None)
            if refusal is None:
                granted.append(f"{run}-{number}")
            continue
        if not granted:
            continue
        chosen = granted[rest[0] % len(granted)]
        if verb == "extend" and chosen not in settled:
            refusal = (await store.extend(chosen, claims({1: rest[1]}, run))).refusal
            answers.append((refusal.bucket, refusal.used) if refusal else None)
        elif verb == "settle":
            answers.append(await store.settle(chosen, {f"{run}:requests": rest[1] % 4, f"{run}:tokens": rest[1]}))
            settled.add(chosen)
        elif verb == "renew":
            await store.renew("gw", [chosen], 600)
        readings = await store.read(claims({0: 1, 1: 1, 2: 1}, run))
        answers.append([reading.used for reading in readings])
    return answers


@given(script=steps)
@settings(max_examples=60, deadline=None)
def test_both_stores_decide_alike(limit_server: Any, script: list[Any]) -> None:
    async def both() -> tuple[list[Any], list[Any]]:
        run = uuid.uuid4().hex
        shared = ValkeyStore(limit_server.url)
        try:
            return await play(MemoryStore(ManualClock()), script, run), await play(shared, script, run)
        finally:
            await shared.close()

    memory, shared = asyncio.run(both())
    assert shared == memory


def hammer(url: str, seed: int, results: Any) -> None:
    """One gateway with many callers: reserve, maybe extend, settle with less or more; counts what was admitted."""

    async def run() -> dict[str, int]:
        store, chance = ValkeyStore(url), random.Random(seed)
        admitted = {"requests": 0, "tokens": 0, "most_running": 0}

        async def caller(number: int) -> None:
            for turn in range(12):
                request_id = f"{seed}-{number}-{turn}"
                wanted = [
                    Claim("all:requests", 1, 150, DAY),
                    Claim("all:tokens", 10, 2_000, DAY),
                    Claim("all:running", 1, 7, lease=True),
                ]
                if (await store.reserve(request_id, wanted, 60)).refusal is not None:
                    await asyncio.sleep(chance.random() / 200)
                    continue
                running = (await store.read([wanted[2]]))[0].used
                admitted["most_running"] = max(admitted["most_running"], running)
                more = (await store.extend(request_id, [Claim("all:tokens", 5, 2_000, DAY)])).refusal is None
                used = chance.randint(0, 15 if more else 10)
                await store.settle(request_id, {"all:requests": 1, "all:tokens": used})
                admitted["requests"] += 1
                admitted["tokens"] += used

        await asyncio.gather(*[caller(number) for number in range(50)])
        await store.close()
        return admitted

    results.put(asyncio.run(run()))


def test_four_gateways_with_two_hundred_callers_never_admit_one_too_many(valkey: Any) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    gateways = [context.Process(target=hammer, args=(valkey.url, seed, results)) for seed in range(4)]
    for gateway in gateways:
        gateway.start()
    counted = [results.get(timeout=120) for _ in gateways]
    for gateway in gateways:
        gateway.join(30)
    assert max(each["most_running"] for each in counted) <= 7
    requests, tokens = sum(each["requests"] for each in counted), sum(each["tokens"] for each in counted)
    assert requests <= 150
    assert tokens <= 2_000
    with valkey.client() as client:
        keys = {key.decode(): int(client.hget(key, "u") or 0) for key in client.keys("tw:c:*")}
        assert client.zcard("tw:l:all:running") == 0, "no lease leaks"
    assert sum(value for key, value in keys.items() if "requests" in key) == requests
    assert sum(value for key, value in keys.items() if "tokens" in key) == tokens
    last = asyncio.run(reserve_once(valkey.url, Claim("all:tokens", 2_000 - tokens, 2_000, DAY)))
    assert last is None, "nothing is refused while there is room"
    assert asyncio.run(reserve_once(valkey.url, Claim("all:tokens", 1, 2_000, DAY))) is not None


async def reserve_once(url: str, claim: Claim) -> Any:
    store = ValkeyStore(url)
    try:
        return (await store.reserve(uuid.uuid4().hex, [claim], 60)).refusal
    finally:
        await store.close()


def test_a_flush_of_functions_and_scripts_heals_by_itself(valkey: Any) -> None:
    async def run() -> None:
        store = ValkeyStore(valkey.url)
        claim = Claim("b", 1, 2)
        assert (await store.reserve("a", [claim], 60)).refusal is None
        with valkey.client() as client:
            client.execute_command("FUNCTION", "FLUSH")
            client.script_flush()
        assert (await store.reserve("b", [claim], 60)).refusal is None
        assert (await store.reserve("c", [claim], 60)).refusal is not None
        assert await store.settle("a", {}) is True
        await store.close()

    asyncio.run(run())


def test_a_killed_server_comes_back_with_what_it_promised(valkey: Any) -> None:
    async def run() -> None:
        store = ValkeyStore(valkey.url, timeout=0.5)
        claim = Claim("budget", 3, 5)
        assert (await store.reserve("a", [claim], 60)).refusal is None
        valkey.kill()
        with pytest.raises(Unavailable) as error:
            await store.reserve("b", [claim], 60)
        assert error.value.retry_after == 1
        valkey.start()
        refusal = (await store.reserve("b", [claim], 60)).refusal
        assert refusal is not None
        assert refusal.used == 3
        await store.close()

    asyncio.run(run())


def test_a_paused_server_is_a_bounded_wait(valkey: Any) -> None:
    async def run() -> None:
        store = ValkeyStore(valkey.url, timeout=0.2)
        with valkey.client() as client:
            client.execute_command("CLIENT", "PAUSE", 1500, "ALL")
        with pytest.raises(Unavailable):
            async with asyncio.timeout(5):
                await store.reserve("a", [Claim("b", 1, 1)], 60)
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(Unavailable):
                    await store.reserve("a", [Claim("b", 1, 1)], 60)
                    break
                await asyncio.sleep(0.05)
        assert (await store.read([Claim("b", 1, 1)]))[0].used == 1
        await store.close()

    asyncio.run(run())


def test_counts_beyond_exact_numbers_are_refused(limit_server: Any) -> None:
    async def run() -> None:
        store = ValkeyStore(limit_server.url)
        with pytest.raises(ValueError, match="largest exact"):
            await store.reserve("a", [Claim("b", 1, LARGEST + 1)], 60)
        big = Claim(f"big-{uuid.uuid4().hex}", LARGEST - 1, LARGEST)
        assert (await store.reserve(uuid.uuid4().hex, [big], 60)).refusal is None
        assert (await store.read([big]))[0].used == LARGEST - 1
        await store.close()

    asyncio.run(run())
