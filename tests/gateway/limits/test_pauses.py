"""A pause and the rest of a key hold on another gateway, too; a store that is away leaves each with its own."""

import asyncio
from typing import Any

from tokenworks.core.errors import Fault, UpstreamOverloaded
from tokenworks.core.request import Conversation
from tokenworks.core.target import RouteLimits, Target
from tokenworks.gateway.failover.health import Health
from tokenworks.gateway.failover.pauses import KEY, MOST, SharedPauses
from tokenworks.gateway.upstreams.keyring import Keyring
from tokenworks.snapshot.records import CredentialRecord, UpstreamRecord

TARGET = Target("u", "m", RouteLimits(), price=None)  # type: ignore[arg-type]


def limited(seconds: float) -> UpstreamOverloaded:
    return UpstreamOverloaded("slow down", retry_after=seconds, fault=Fault.RATE_LIMIT)


async def until(probe: Any) -> None:
    async with asyncio.timeout(10):
        while not probe():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.02)


def test_what_one_hears_the_other_knows(valkey: Any) -> None:
    async def go() -> None:
        one, other = Health(), Health()
        keys, others = Keyring(bytes(32)), Keyring(bytes(32))
        shared = [SharedPauses(one, keys, valkey.url, 1.0), SharedPauses(other, others, valkey.url, 1.0)]
        for each in shared:
            each.start()
        one.failed(TARGET, limited(20.0), Conversation, 5)
        await until(lambda: other.paused("u"))
        assert 15.0 < other.paused("u") <= 20.0
        one.failed(TARGET, limited(2.0), Conversation, 5)  # a shorter one does not shorten it
        await asyncio.sleep(0.7)
        assert other.paused("u") > 15.0
        assert not other.paused("another")
        assert keys.failed(CredentialRecord("u", b""), UpstreamRecord("u", "p", (), ""), limited(30.0))
        await until(lambda: others.rests("u"))
        assert 20.0 < others.rests("u") <= 30.0
        assert other.paused("u") <= 20.0, "a key and an upstream of one name are two"
        for each in shared:
            await each.stop()

    asyncio.run(go())


def test_without_the_store_each_knows_its_own() -> None:
    async def go() -> None:
        health = Health()
        shared = SharedPauses(health, Keyring(bytes(32)), "unix:///nowhere/at/all.sock", 0.2)
        shared.start()
        health.failed(TARGET, limited(5.0), Conversation, 5)
        await asyncio.sleep(0.8)
        assert health.paused("u") > 3.0
        await shared.stop()

    asyncio.run(go())


def test_what_is_shared_is_bounded(valkey: Any) -> None:
    async def go() -> None:
        health = Health()
        shared = SharedPauses(health, Keyring(bytes(32)), valkey.url, 1.0)
        with valkey.client() as client:
            client.zadd(KEY, {f"k:{number}": 2e12 + number for number in range(MOST)})
            health.failed(TARGET, limited(5.0), Conversation, 5)
            await until(lambda: client.zcard(KEY) == MOST and client.ttl(KEY) > 0)
        await shared.stop()

    asyncio.run(go())
