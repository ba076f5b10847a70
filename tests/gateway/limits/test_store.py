"""The limit store, as a state machine against a model that is too simple to be wrong."""

import asyncio
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tokenworks.core.clock import ManualClock
from tokenworks.core.windows import FOREVER
from tokenworks.gateway.admission.limits.base import Claim, Refusal
from tokenworks.gateway.admission.limits.memory import REMEMBER_SECONDS, MemoryStore

LIMITS = {
    "key:requests": (5, 10),
    "project:tokens": (50, 60),
    "org:money": (300, FOREVER),
    "model:running": (3, FOREVER),
}
LEASED = {"model:running"}
TTL = 20.0


def claim(bucket: str, amount: int) -> Claim:
    limit, window = LIMITS[bucket]
    leased = bucket in LEASED
    return Claim(bucket, 1 if leased else amount, limit, window, lease=leased)


class Stores(RuleBasedStateMachine):
    """Random reservations, extensions, settlements and waits: never a unit too much, nothing refused while it fits."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(now_ns=0)
        self.store = MemoryStore(self.clock)
        self.counts: dict[tuple[str, int], int] = defaultdict(int)
        self.leases: dict[str, dict[str, float]] = {bucket: {} for bucket in LEASED}
        self.held: dict[str, list[tuple[str, int, int]]] = {}
        self.settled: set[str] = set()
        self.next = 0

    def run(self, coroutine: Any) -> Any:
        return asyncio.run(coroutine)

    def now(self) -> float:
        return self.clock.now_ns() / 1e9

    def epoch(self, bucket: str) -> int:
        window = LIMITS[bucket][1]
        return 0 if window == FOREVER else int(self.now() // window)

    def used(self, bucket: str) -> int:
        if bucket in LEASED:
            return sum(end > self.now() for end in self.leases[bucket].values())
        return self.counts[bucket, self.epoch(bucket)]

    def fits(self, claims: list[Claim]) -> bool:
        return all(self.used(each.bucket) + each.amount <= each.limit for each in claims)

    def take(self, request_id: str, claims: list[Claim]) -> None:
        for each in claims:
            if each.lease:
                self.leases[each.bucket][request_id] = self.now() + TTL
            else:
                self.counts[each.bucket, self.epoch(each.bucket)] += each.amount
                self.held[request_id].append((each.bucket, self.epoch(each.bucket), each.amount))

    @rule(amounts=st.dictionaries(st.sampled_from(sorted(LIMITS)), st.integers(1, 40), min_size=1))
    def reserve(self, amounts: dict[str, int]) -> None:
        self.next += 1
        request_id = f"r{self.next}"
        claims = [claim(bucket, amount) for bucket, amount in sorted(amounts.items())]
        refusal = self.run(self.store.reserve(request_id, claims, TTL)).refusal
        assert (refusal is None) == self.fits(claims)
        if refusal is None:
            self.held[request_id] = []
            self.take(request_id, claims)
            assert self.run(self.store.reserve(request_id, claims, TTL)).refusal is None, "repeating changes nothing"
        else:
            violated = next(each for each in claims if self.used(each.bucket) + each.amount > each.limit)
            assert refusal.bucket == violated.bucket
            assert refusal.used == self.used(violated.bucket)

    @rule(data=st.data(), amount=st.integers(1, 30))
    def extend(self, data: st.DataObject, amount: int) -> None:
        running = sorted(set(self.held) - self.settled)
        if not running:
            return
        request_id = data.draw(st.sampled_from(running))
        claims = [claim("project:tokens", amount), claim("org:money", amount)]
        refusal = self.run(self.store.extend(request_id, claims)).refusal
        assert (refusal is None) == self.fits(claims)
        if refusal is None:
            self.take(request_id, claims)

    @rule(data=st.data(), actual=st.integers(0, 60))
    def settle(self, data: st.DataObject, actual: int) -> None:
        if not self.held:
            return
        request_id = data.draw(st.sampled_from(sorted(self.held)))
        buckets = {bucket for bucket, _, _ in self.held[request_id]}
        first = self.run(self.store.settle(request_id, dict.fromkeys(buckets, actual)))
        assert first == (request_id not in self.settled)
        if not first:
            return
        self.settled.add(request_id)
        for running in self.leases.values():
            running.pop(request_id, None)
        for bucket in buckets:
            parts = [(epoch, amount) for name, epoch, amount in self.held[request_id] if name == bucket]
            difference = actual - sum(amount for _, amount in parts)
            for epoch, amount in reversed(parts):
                refund = min(amount, max(-difference, 0))
                self.counts[bucket, epoch] -= refund
                difference += refund
            if difference > 0:
                self.counts[bucket, self.epoch(bucket)] += difference

    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        running = sorted(set(self.held) - self.settled)
        chosen = data.draw(st.lists(st.sampled_from(running), unique=True)) if running else []
        self.run(self.store.renew("gw", chosen, TTL))
        for request_id in chosen:
            for leases in self.leases.values():
                if request_id in leases:
                    leases[request_id] = self.now() + TTL

    @rule(seconds=st.floats(0.1, 45))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @invariant()
    def readings_agree(self) -> None:
        claims = [claim(bucket, 1) for bucket in sorted(LIMITS)]
        readings = self.run(self.store.read(claims))
        assert [reading.used for reading in readings] == [self.used(each.bucket) for each in claims]


Stores.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMemoryStore = Stores.TestCase


def reserve(store: MemoryStore, request_id: str, *claims: Claim, ttl: float = TTL) -> Refusal | None:
    return asyncio.run(store.reserve(request_id, list(claims), ttl)).refusal


def test_a_refusal_names_the_bucket_and_the_exact_wait() -> None:
    clock = ManualClock(now_ns=3_000_000_000)
    store = MemoryStore(clock)
    per_ten = Claim("b", 4, 5, window=10)
    assert reserve(store, "a", per_ten) is None
    refusal = reserve(store, "b", per_ten)
    assert refusal is not None
    assert (refusal.bucket, refusal.limit, refusal.used) == ("b", 5, 4)
    assert refusal.retry_after == pytest.approx(7)
    clock.advance(6.99)
    assert reserve(store, "c", per_ten) is not None
    clock.advance(0.02)
    assert reserve(store, "d", per_ten) is None


def test_what_can_never_fit_says_so() -> None:
    store = MemoryStore(ManualClock(now_ns=0))
    refusal = reserve(store, "a", Claim("b", 6, 5, window=10))
    assert refusal is not None
    assert refusal.retry_after is None
    assert reserve(store, "b", Claim("budget", 5, 5)) is None
    spent = reserve(store, "c", Claim("budget", 1, 5))
    assert spent is not None
    assert spent.retry_after is None


def test_a_lease_that_nobody_renews_ends_by_itself() -> None:
    clock = ManualClock(now_ns=0)
    store = MemoryStore(clock)
    running = Claim("running", 1, 1, lease=True)
    assert reserve(store, "dead", running, ttl=5) is None
    refusal = reserve(store, "next", running)
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(5)
    clock.advance(5.01)
    assert reserve(store, "next", running) is None


def test_local_midnight_is_a_windows_border() -> None:
    clock = ManualClock(now_ns=0)
    store = MemoryStore(clock)
    daily = Claim("money", 5, 5, window=86_400, offset=-3_600)
    assert reserve(store, "a", daily) is None
    refusal = reserve(store, "b", daily)
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(82_800)


def test_nothing_is_kept_forever() -> None:
    clock = ManualClock(now_ns=0)
    store = MemoryStore(clock)
    for number in range(1000):
        request_id = f"r{number}"
        reserve(store, request_id, Claim("requests", 1, 10, window=1), Claim("running", 1, 5, lease=True))
        asyncio.run(store.settle(request_id, {"requests": 1}))
        clock.advance(10)
    assert len(store._counts) < 5
    assert len(store._holds) < 400
    assert not store._leases["running"]


def test_what_was_settled_leaves_its_id_and_that_for_a_while() -> None:
    clock = ManualClock(now_ns=0)
    store = MemoryStore(clock)
    claim = Claim("requests", 1, 10_000, window=86_400)
    for number in range(1000):
        assert reserve(store, f"r{number}", claim) is None
        asyncio.run(store.settle(f"r{number}", {"requests": 1}))
    assert not store._holds
    assert len(store._expiring) < 100, "ends of holds that are settled are no longer waited for"
    assert reserve(store, "r7", claim) is None
    assert asyncio.run(store.read([claim]))[0].used == 1000, "it was settled, and is not reserved again"
    clock.advance(3 * REMEMBER_SECONDS)
    asyncio.run(store.read([claim]))
    clock.advance(REMEMBER_SECONDS)
    asyncio.run(store.read([claim]))
    assert not store._settled | store._settled_before


def test_who_comes_back_late_settles_what_it_took_and_holds_its_lease_again() -> None:
    clock = ManualClock(now_ns=0)
    store = MemoryStore(clock)
    running, money = Claim("running", 1, 1, lease=True), Claim("money", 5, 10, floor=0)
    assert reserve(store, "slow", running, money, ttl=5) is None
    clock.advance(6)
    assert [reading.used for reading in asyncio.run(store.read([running, money]))] == [0, 0]
    asyncio.run(store.renew("gw", ["slow"], 5))
    assert reserve(store, "next", running) is not None
    clock.advance(6)
    assert reserve(store, "next", running) is None, "and it ends again by itself"
    assert asyncio.run(store.settle("slow", {"money": 3}))
    assert asyncio.run(store.read([money]))[0].used == 3


def test_a_moved_border_changes_nothing_that_was_counted() -> None:
    store = MemoryStore(ManualClock(now_ns=1_000_000_000 * 86_400 * 3))
    before, after = Claim("money", 5, 10, window=-1), Claim("money", 5, 10, window=-1, offset=-3_600)
    assert reserve(store, "a", before) is None
    assert reserve(store, "b", after) is None
    assert reserve(store, "c", before) is not None
    asyncio.run(store.settle("a", {"money": 1}))
    assert asyncio.run(store.read([after]))[0].used == 6
