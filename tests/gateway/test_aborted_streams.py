"""Callers that leave in the middle of their streams, hundreds of them, at a gateway on Valkey: no lease stays, no key
is stuck, and each of them is billed for what was generated."""

import asyncio
import contextlib
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from tests.gateway.conftest import chunk, running_gateway, stream, wait_for
from tests.gateway.limits.conftest import LimitServer, started

from tokenworks.journal.records import Settled
from tokenworks.snapshot.records import LimitRecord

KEY = "sk-tw-test-key"
KEY_ID = f"key_{hashlib.sha256(KEY.encode()).hexdigest()[:8]}"
ABORTED, AT_ONCE = 500, 20
"""Over real connections; tests/gateway/limits/test_complaints.py has ten thousand without."""
BODY = json.dumps(
    {"model": "assistant", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1_000, "stream": True}
).encode()
HEAD = (
    f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
    f"content-length: {len(BODY)}\r\n\r\n"
)
LIMITS = (
    LimitRecord("key", KEY_ID, None, "concurrency", 2 * AT_ONCE),
    LimitRecord("project", "proj_1", None, "tokens", 10**9, window=86_400, strict=True),
    LimitRecord("organization", "org_1", None, "spend_nano_usd", 10**12, period="month"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[LimitServer]:
    with started() as made:
        with made.client() as client:
            client.set("tw:born", "1")  # long ago: a store that is new knows of no budget for a while
        yield made


async def endless(request: web.Request, seen: Any) -> web.StreamResponse:
    words = b"".join(chunk({"content": "word "}) for _ in range(3))
    return await stream(request, [words] * 10_000, pause=0.3)


async def leave(port: int, chance: random.Random) -> bytes:
    """Hangs up before the answer's head, with it, or after some of its words, politely or not. What it had read.

    It may be refused: who left keeps its place until the gateway has noticed.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    read = b""
    try:
        writer.write(HEAD.encode() + BODY)
        if (patience := chance.choice((0, 1, 2))) == 0:
            await asyncio.sleep(chance.random() / 100)
            return read
        read = await reader.readuntil(b"\r\n\r\n")
        if patience == 2 and read.startswith(b"HTTP/1.1 200"):
            read += await reader.readuntil(b"word ")
        return read
    finally:
        if chance.random() < 0.5:
            writer.transport.abort()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def test_hundreds_of_callers_leave_and_nothing_stays(servers: Any, server: LimitServer) -> None:
    chance = random.Random(4)
    with running_gateway(servers, "--limits", server.url, "--limits-wait", "10") as gateway:
        state = gateway.control._state
        gateway.control.publish(replace(state, limits={limit.name: limit for limit in LIMITS}))
        gateway.upstream.script = endless
        port = int(gateway.url.rpartition(":")[2])

        async def everybody() -> list[bytes]:
            room = asyncio.Semaphore(AT_ONCE)

            async def one() -> bytes:
                async with room:
                    return await leave(port, chance)

            return await asyncio.gather(*[one() for _ in range(ABORTED)])

        read = asyncio.run(everybody())
        with server.client() as client:
            wait_for(lambda: client.zcard("tw:open") == 0, 30)
            assert not [key for key in client.keys("tw:l:*") if client.zcard(key)]
            assert all(int(client.hget(key, "s") or 0) == 0 for key in client.keys("tw:c:*")), "nothing is held"
        wait_for(lambda: opened(gateway) == settled(gateway).keys(), 30)
        bills = settled(gateway).values()
        assert len(bills) >= sum(answer.startswith(b"HTTP/1.1 200") for answer in read)
        assert {bill.outcome for bill in bills} == {"cancelled"}
        heard = [bill for bill in bills if bill.usage.output]
        assert len(heard) >= sum(b"word " in answer for answer in read)
        assert heard and all(bill.charge > 0 for bill in heard)
        after = asyncio.run(leave(port, random.Random(5)))
        assert after.startswith(b"HTTP/1.1 200"), "the key is not locked"


def opened(gateway: Any) -> set[str]:
    return {record.request_id for record in gateway.control.records if not isinstance(record, Settled)}


def settled(gateway: Any) -> dict[str, Settled]:
    return {record.request_id: record for record in gateway.control.records if isinstance(record, Settled)}
