"""Several keys of one provider, over a real socket: who is told which, and what becomes of those that are refused."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from tokenworks.core.errors import Fault, TokenworksError
from tokenworks.core.target import RouteLimits
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.gateway.upstreams.prepare import Outgoing
from tokenworks.protocols import codec
from tokenworks.snapshot.records import CredentialRecord, OwnKeysRecord, UpstreamRecord
from tokenworks.snapshot.sealing import fingerprint, owned, seal

CLUSTER = bytes(32)
OUTGOING = Outgoing(codec("openai_chat"), b"{}", "/chat/completions", {})
ERRORS = {
    "bad": (401, {"error": {"message": "no", "code": "invalid_api_key"}}),
    "poor": (429, {"error": {"message": "pay", "type": "insufficient_quota", "code": "insufficient_quota"}}),
    "busy": (429, {"error": {"message": "slower", "code": "rate_limit_exceeded"}}),
    "wrong": (400, {"error": {"message": "what?"}}),
}


def credential(secret: str, upstream: str = "up", project: str = "") -> CredentialRecord:
    bound = owned(upstream, project) if project else upstream
    sealed = seal(CLUSTER, bound, secret)
    return CredentialRecord(fingerprint(CLUSTER, secret), sealed, upstream if project else "")


Check = Callable[[Upstreams, UpstreamRecord, list[str]], Awaitable[None]]


def with_provider(check: Check, *secrets: str) -> None:
    """Runs `check` with a provider that answers by the key it is told; it is given the keys that the provider saw."""

    async def run() -> None:
        told: list[str] = []

        async def answer(request: web.Request) -> web.Response:
            key = request.headers.get("authorization", "none").removeprefix("Bearer ")
            told.append(key)
            status, body = ERRORS.get(key.partition("-")[0], (200, {"key": key}))
            return web.json_response(body, status=status)

        app = web.Application()
        app.router.add_post("/chat/completions", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        keys = tuple(credential(secret) for secret in secrets)
        upstream = UpstreamRecord("up", "up", ("openai_chat",), f"http://127.0.0.1:{port}", keys)
        upstreams = Upstreams(CLUSTER)
        try:
            await check(upstreams, upstream, told)
        finally:
            await upstreams.close()
            await runner.cleanup()

    asyncio.run(run())


async def ask(upstreams: Upstreams, upstream: UpstreamRecord, own: OwnKeysRecord | None = None) -> Any:
    async with upstreams.call(upstream, OUTGOING, RouteLimits(), own) as answer:
        return json.loads(await answer.read())["key"]


@pytest.mark.parametrize("first", ["bad", "poor", "busy"])
def test_the_next_key_is_used_while_one_rests(first: str) -> None:
    async def check(upstreams: Upstreams, upstream: UpstreamRecord, told: list[str]) -> None:
        assert await ask(upstreams, upstream) == "good"
        assert await ask(upstreams, upstream) == "good"
        assert told == [first, "good", "good"]
        assert upstreams.keyring.rests(upstream.credentials[0].id) > 0
        assert upstreams.keyring.rests(upstream.credentials[1].id) == 0
        assert not upstreams.in_flight

    with_provider(check, first, "good")


def test_a_callers_mistake_is_told_no_second_key() -> None:
    async def check(upstreams: Upstreams, upstream: UpstreamRecord, told: list[str]) -> None:
        with pytest.raises(TokenworksError) as caught:
            await ask(upstreams, upstream)
        assert caught.value.fault is Fault.CALLER
        assert told == ["wrong"]

    with_provider(check, "wrong", "good")


def test_when_all_are_refused_the_one_that_is_back_first_is_asked() -> None:
    async def check(upstreams: Upstreams, upstream: UpstreamRecord, told: list[str]) -> None:
        for _ in range(2):
            with pytest.raises(TokenworksError):
                await ask(upstreams, upstream)
        assert told == ["bad", "busy-1", "poor", "busy-1"]

    with_provider(check, "bad", "busy-1", "poor")


def test_a_replaced_key_does_not_inherit_the_rest() -> None:
    async def check(upstreams: Upstreams, upstream: UpstreamRecord, told: list[str]) -> None:
        with pytest.raises(TokenworksError):
            await ask(upstreams, upstream)
        replaced = UpstreamRecord("up", "up", upstream.protocols, upstream.base_url, (credential("new"),))
        assert await ask(upstreams, replaced) == "new"

    with_provider(check, "bad")


def test_a_projects_own_key_is_used_alone() -> None:
    async def check(upstreams: Upstreams, upstream: UpstreamRecord, told: list[str]) -> None:
        own = OwnKeysRecord("proj_1", (credential("theirs", project="proj_1"), credential("x", "other", "proj_1")))
        assert await ask(upstreams, upstream, own) == "theirs"
        refused = OwnKeysRecord("proj_1", (credential("bad", project="proj_1"),))
        with pytest.raises(TokenworksError, match="the key that your project brought") as caught:
            await ask(upstreams, upstream, refused)
        assert caught.value.fault is Fault.CREDENTIAL
        assert told == ["theirs", "bad"]

    with_provider(check, "ours")


def test_a_project_cannot_use_what_was_sealed_for_another() -> None:
    async def check(upstreams: Upstreams, upstream: UpstreamRecord, told: list[str]) -> None:
        stolen = OwnKeysRecord("proj_2", (credential("theirs", project="proj_1"),))
        with pytest.raises(ValueError, match="cannot be opened"):
            await ask(upstreams, upstream, stolen)
        assert told == []

    with_provider(check)
