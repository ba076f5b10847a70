"""What users of other gateways complain about, each as a test. The numbers are those of the collected complaints."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from tests.gateway.limits.kit import DAY, Desk, limit, ran, valkey_at

from tokenworks.core.clock import ManualClock
from tokenworks.core.errors import LimitReached, Unavailable
from tokenworks.core.windows import MONTH, epoch_at
from tokenworks.gateway.admission.limits import valkey as module
from tokenworks.gateway.admission.limits.base import Claim
from tokenworks.gateway.admission.limits.memory import MemoryStore
from tokenworks.gateway.admission.limits.valkey import ValkeyStore

Work = Callable[[list[Desk]], Coroutine[Any, Any, None]]


def with_gateways(server: Any, count: int, work: Work, *limits: Any, **settings: Any) -> None:
    """`work` gets so many gateways on one store, which has been there for a while."""

    async def whole() -> None:
        with server.client() as client:
            client.set("tw:born", "1")
        desks = [
            Desk(ValkeyStore(server.url, timeout=5), list(limits), name=f"gw{number}", **settings)
            for number in range(count)
        ]
        try:
            await work(desks)
        finally:
            for desk in desks:
                await desk.admission.close()

    asyncio.run(whole())


async def outcomes(desks: list[Desk], count: int, **request: Any) -> list[Any]:
    """So many requests at once over all gateways: holds and refusals."""
    tries = [desks[number % len(desks)].hold(**request) for number in range(count)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert all(not isinstance(each, Exception) or isinstance(each, LimitReached) for each in done), done
    return done


def granted(done: list[Any]) -> list[Any]:
    return [each for each in done if not isinstance(each, Exception)]


def test_08_a_budget_holds_for_the_first_requests_of_a_new_key_on_all_pods_at_once(valkey: Any) -> None:
    """litellm#34732, #40095, #35567, #33325: races on counters, a first request that is not counted, pod-local ones."""

    async def work(desks: list[Desk]) -> None:
        done = await outcomes(desks, 40, body=100, max_output_tokens=100, own=["x"])
        held = granted(done)
        each = held[0].held[0].granted
        assert each * len(held) <= 1_000_000 < each * (len(held) + 1)
        for hold in held:
            ran(hold, 100, 100)
            await hold.settle()

    with_gateways(valkey, 4, work, limit("spend_nano_usd", 1_000_000, period="month"))


def test_09_a_budget_of_25_dollars_with_nothing_spent_refuses_nobody(valkey: Any) -> None:
    """litellm PR#38647, #36926: worst-case reservations clamped to the budget, everybody else got 429."""

    async def work(desks: list[Desk]) -> None:
        async def caller(number: int) -> None:
            hold = await desks[number % 2].hold(body=50)
            async with hold:
                await asyncio.sleep(0.02)
                ran(hold, 40, 10)

        await asyncio.gather(*[caller(number) for number in range(60)])

    # The worst case of one request, 20 million tokens of output, is 12 USD: two of them hold nearly all there is.
    budget = limit("spend_nano_usd", 25_000_000_000, period="month")
    with_gateways(valkey, 2, work, budget, wait=10.0, max_output=20_000_000)


def test_10_a_request_whose_cost_cannot_be_told_is_still_counted(valkey: Any) -> None:
    """litellm#35524: no estimate, no reservation. Here a model that states no bound is held, watched, and ended."""

    async def work(desks: list[Desk]) -> None:
        hold = await desks[0].hold(body=50)
        assert hold.held[0].granted == 512
        assert hold.asked.request.may_end
        assert await hold.covers(1_500)
        assert await hold.covers(2_000)
        with pytest.raises(LimitReached):
            await desks[0].hold(body=50)
        assert not await hold.covers(2_001)
        assert hold.ended == "the limit of key k is used up"
        ran(hold, 10, 2_000)
        await hold.settle()

    with_gateways(valkey, 1, work, limit("output_tokens", 2_000), max_output=None)


def test_11_tokens_per_minute_do_not_multiply_by_replicas(valkey: Any) -> None:
    """litellm#40291, #27736, #10555, #18730: each pod gave the whole limit; concurrent requests bypassed it."""

    async def exact(desks: list[Desk]) -> None:
        done = await outcomes(desks, 80, body=20, max_output_tokens=100, own=["x"])
        assert len(granted(done)) == 40
        for hold in granted(done):
            await hold.settle()

    with_gateways(valkey, 4, exact, limit("output_tokens", 4_000))


def test_11_a_key_with_few_tokens_a_minute_gets_its_first_request(valkey: Any) -> None:
    """litellm#29191: keys with less than 1,024 tokens a minute failed at the first request."""

    async def work(desks: list[Desk]) -> None:
        async with await desks[0].hold(body=100) as hold:
            ran(hold, 20, 30)
        with pytest.raises(LimitReached):
            await desks[0].hold(body=4_000)

    with_gateways(valkey, 1, work, limit("tokens", 300, strict=False))


def test_12_a_store_that_is_blocked_is_told_and_does_not_multiply_limits(valkey: Any) -> None:
    """litellm#32232: Lua was blocked, limits silently multiplied by the number of pods."""

    async def work(desks: list[Desk]) -> None:
        for desk in desks:
            desk.admission.start()
        for desk in desks:
            await desk.admission._link._meet([])
        for desk in desks:
            await desk.admission._link._meet([])
        valkey.kill()
        try:
            done = await outcomes(desks, 60, body=20)
            assert all(hold.degraded for hold in granted(done))
            assert len(granted(done)) == 12, "each gateway gives its even share"
            assert all(desk.admission.degraded for desk in desks)
            desks[0].enforce(limit("requests", 12))
            with pytest.raises(Unavailable) as refused:
                await desks[0].hold(body=20)
            assert refused.value.retry_after
        finally:
            valkey.start()

    with_gateways(valkey, 3, work, limit("requests", 12, strict=False))


def test_13_aborted_requests_leave_no_lease_and_no_stuck_key(valkey: Any) -> None:
    """litellm#27955, #20256, #40846: a counter that leaked with every aborted stream, until keys were locked."""

    async def work(desks: list[Desk]) -> None:
        for _ in range(ABORTED // 100):
            tasks = [asyncio.create_task(aborted(desks[number % 2], number)) for number in range(100)]
            await asyncio.sleep(0.005)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for desk in desks:
            await desk.admission.settled()
        with valkey.client() as client:
            assert not client.keys("tw:l:*")
            assert client.zcard("tw:open") == 0
            counts = [client.hgetall(key) for key in client.keys("tw:c:*")]
        assert all(int(each.get(b"u", 0)) == 0 and int(each.get(b"s", 0)) == 0 for each in counts), counts
        done = granted(await outcomes(desks, 5, body=20))
        assert len(done) == 5
        for hold in done:
            await hold.settle()

    async def aborted(desk: Desk, number: int) -> None:
        async with await desk.hold(body=20):
            await asyncio.sleep(0 if number % 3 else 1)

    with_gateways(
        valkey,
        2,
        work,
        limit("concurrency", 1_000),
        limit("tokens", 10_000_000),
        limit("spend_nano_usd", 10**12, period="day"),
    )


ABORTED = 10_000


def test_24_no_overdraft_between_check_and_charge() -> None:
    """one-api#2440, new-api#6609: quota was checked, then taken. Here both are one step."""

    async def work() -> None:
        desk = Desk(MemoryStore(), [limit("spend_nano_usd", 60_000, scope="organization", period="total")])
        holds = granted(await outcomes([desk], 50, body=10, max_output_tokens=10, own=["x"]))
        assert sum(hold.held[0].granted for hold in holds) <= 60_000
        for hold in holds:
            ran(hold, 10, 10)
            await hold.settle()
        left = 60_000 - len(holds) * 7_500
        claim = Claim(desk.snapshot.state.limits.copy().popitem()[0], left, 60_000)
        assert (await desk.store.reserve("rest", [claim], 60)).refusal is None

    asyncio.run(work())


# What lies between the complaints: how much is reserved, who waits, what a lost store starts from.


@pytest.fixture(params=["memory", "valkey"])
def store(request: Any, valkey: Any) -> Callable[[], AsyncIterator[Any]]:
    with valkey.client() as client:
        client.set("tw:born", "1")
    if request.param == "memory":

        async def memory() -> AsyncIterator[Any]:
            yield MemoryStore()

        return memory

    async def shared() -> AsyncIterator[Any]:
        async with valkey_at(valkey.url) as made:
            yield made

    return shared


def run(store: Any, work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        async for made in store():
            await work(made)

    asyncio.run(whole())


def test_a_claim_gets_all_or_enough_or_the_rest_but_never_less_than_the_least(store: Any) -> None:
    async def work(at: Any) -> None:
        def claim(amount: int) -> list[Claim]:
            return [Claim("b", amount, 100, DAY, least=5, enough=20)]

        got = [(await at.reserve(name, claim(60), 60)).readings[0].granted for name in "abcd"]
        assert got == [60, 20, 20, 0]
        refusal = (await at.reserve("e", claim(60), 60)).refusal
        assert (refusal.used, refusal.pending) == (100, 55 + 15 + 15)
        assert await at.settle("a", {"b": 90})
        assert (await at.read(claim(0)))[0].used == 130
        assert await at.settle("b", {"b": 0})
        assert await at.settle("c", {"b": 1})
        assert (await at.reserve("f", claim(60), 60)).readings[0].granted == 9
        assert (await at.reserve("f", claim(60), 60)).readings[0].granted == 9, "told again, not taken again"

    run(store, work)


def test_a_budget_starts_from_what_the_ledger_knows_and_counts_nothing_twice(store: Any) -> None:
    async def work(at: Any) -> None:
        month = epoch_at(time.time(), MONTH, 0)
        budget = Claim("m", 10, 100, MONTH, floor=70, since=month)
        assert (await at.reserve("a", [budget], 60)).readings[0].used == 80
        assert (await at.reserve("b", [budget], 60)).readings[0].used == 90
        await at.settle("a", {"m": 10})
        told = Claim("m", 10, 100, MONTH, floor=80, since=month)
        assert (await at.reserve("c", [told], 60)).readings[0].used == 100
        older = Claim("m", 1, 100, MONTH, floor=500, since=month - 1)
        assert (await at.read([older]))[0].used == 100, "what was spent last month is not spent in this one"

    run(store, work)


def test_a_request_waits_for_what_others_only_hold_and_is_then_let_in(store: Any) -> None:
    async def work(at: Any) -> None:
        desk = Desk(at, [limit("output_tokens", 1_000)], wait=3_600.0)
        first = await desk.hold(body=10, max_output_tokens=1_000)
        waiting = asyncio.create_task(desk.hold(body=10, max_output_tokens=500))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        ran(first, 10, 100)
        await first.settle()
        second = await asyncio.wait_for(waiting, 60)
        assert second.held[0].granted == 500
        ran(second, 10, 900)
        await second.settle()
        with pytest.raises(LimitReached) as refused:  # what is really used up is refused at once, not in an hour
            await desk.hold(body=10, max_output_tokens=500)
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= DAY

    run(store, work)


def test_who_waits_is_refused_at_the_stated_time(store: Any) -> None:
    async def work(at: Any) -> None:
        desk = Desk(at, [limit("output_tokens", 1_000)], wait=0.3)
        holds = [await desk.hold(body=10, max_output_tokens=1_000)]
        begun = asyncio.get_running_loop().time()
        done = await asyncio.gather(
            *[desk.hold(body=10, max_output_tokens=500) for _ in range(5)], return_exceptions=True
        )
        assert all(isinstance(each, LimitReached) for each in done)
        assert asyncio.get_running_loop().time() - begun >= 0.25
        await holds[0].settle()

    run(store, work)


def test_reservations_learn_what_a_key_usually_takes() -> None:
    async def work() -> None:
        desk = Desk(MemoryStore(), [limit("output_tokens", 10_000_000, strict=False)])
        for _ in range(20):
            async with await desk.hold(body=10) as hold:
                assert hold.held[0].granted >= 50
                ran(hold, 10, 50)
        async with await desk.hold(body=10) as hold:
            assert hold.held[0].granted == 64, "the learned 95th percentile, rounded up to its bucket"
        async with await desk.hold(body=10, key="k2") as hold:
            assert not hold.held
        async with await desk.hold(body=10, max_output_tokens=20) as hold:
            assert hold.held[0].granted == 20

    asyncio.run(work())


def test_the_host_clock_of_a_gateway_does_not_matter() -> None:
    async def work() -> None:
        clock = ManualClock()
        store = MemoryStore(clock)
        per_hour = Claim("b", 1, 1, 3_600)
        assert (await store.reserve("a", [per_hour], 60)).refusal is None
        for jump in (7_200, -86_400, 30 * 86_400):
            clock._now_ns += jump * 10**9
            assert (await store.reserve(f"b{jump}", [per_hour], 60)).refusal is not None
        clock._monotonic += 3_600
        assert (await store.reserve("c", [per_hour], 60)).refusal is None

    asyncio.run(work())


@pytest.mark.parametrize("ahead_ms", [3_600_000, 86_400_000])
def test_a_store_whose_clock_is_set_back_gives_no_window_twice_and_keeps_no_lease(valkey: Any, ahead_ms: int) -> None:
    async def work() -> None:
        async with valkey_at(valkey.url) as store:
            claims = [Claim("n", 1, 1, DAY * 30), Claim("running", 1, 1, lease=True)]
            assert (await store.reserve("a", claims, 0.3)).refusal is None
            with valkey.client() as client:
                wall, lead, lease = map(int, client.get("tw:clock").split())
                client.set("tw:clock", f"{wall + ahead_ms} {lead} {lease}")  # it was ahead until now
            assert (await store.reserve("b", claims[:1], 1)).refusal is not None
            assert (await store.reserve("c", claims[1:], 1)).refusal is not None
            await asyncio.sleep(0.4)
            assert (await store.reserve("d", claims[1:], 1)).refusal is None, "the dead lease has ended in its time"

    asyncio.run(work())


def test_a_store_whose_clock_is_set_forward_ends_nobodys_lease(valkey: Any) -> None:
    async def work() -> None:
        async with valkey_at(valkey.url) as store:
            running = [Claim("running", 1, 1, lease=True)]
            assert (await store.reserve("a", running, 15)).refusal is None
            with valkey.client() as client:
                wall, lead, lease = map(int, client.get("tw:clock").split())
                client.set("tw:clock", f"{wall - 3_600_000} {lead} {lease}")  # an hour in one step
            assert (await store.reserve("b", running, 15)).refusal is not None

    asyncio.run(work())


def test_two_versions_of_the_function_share_counts_during_an_upgrade(
    valkey: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with valkey_at(valkey.url) as old, valkey_at(valkey.url) as new:
            claim = [Claim("b", 1, 3)]
            assert (await old.reserve("a", claim, 60)).refusal is None
            call = new._call

            async def newer(function: str, *arguments: Any) -> Any:
                return await call(function.replace("_v2", "_v3"), *arguments)

            monkeypatch.setattr(new, "_call", newer)
            monkeypatch.setattr(module, "_LIBRARY", module._LIBRARY.replace(b"_v2", b"_v3"))
            assert (await new.reserve("b", claim, 60)).refusal is None
            assert (await old.reserve("c", claim, 60)).refusal is None
            assert (await new.reserve("d", claim, 60)).refusal is not None
            assert await new.settle("a", {}), "a hold of the old one"
            assert (await old.reserve("e", claim, 60)).refusal is None

    asyncio.run(work())
