"""Requests of a project that brought its own key, through a running gateway: its key alone, and nothing charged."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from aiohttp import web
from tests.gateway.conftest import KEY, Gateway, Loop, completion, running_gateway, wait_for

from tokenworks.journal.records import Opened, Settled
from tokenworks.snapshot.records import CredentialRecord, LimitRecord, OwnKeysRecord
from tokenworks.snapshot.sealing import owned, read_cluster_key, seal


@pytest.fixture(scope="module")
def gateway(servers: Loop) -> Iterator[Gateway]:
    with running_gateway(servers) as gateway:
        yield gateway


def bring(gateway: Gateway, *secrets: str) -> None:
    """The project's keys, at the gateway when this returns."""
    cluster_key = read_cluster_key(gateway.directory / "cluster.key")
    bound = owned("upstream-a", "proj_1")
    keys = tuple(
        CredentialRecord(f"pkey_{n}", seal(cluster_key, bound, secret), "upstream-a")
        for n, secret in enumerate(secrets)
    )
    state = gateway.control._state
    own = {"proj_1": OwnKeysRecord("proj_1", keys)} if keys else {}
    gateway.control.publish(replace(state, revision=state.revision + 1, own_keys=own))


def ask(gateway: Gateway) -> Any:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        return client.chat.completions.with_raw_response.create(
            model="assistant", messages=[{"role": "user", "content": "Hi"}]
        )


def told(gateway: Gateway) -> str | None:
    ask(gateway)
    headers = {name.lower(): value for name, value in gateway.upstream.seen[-1].headers.items()}
    return headers.get("authorization")


def settled(gateway: Gateway, request_id: str) -> tuple[Opened, Settled]:
    def found(kind: type) -> Any:
        records = gateway.control.records
        return next((r for r in records if type(r) is kind and r.request_id == request_id), None)

    wait_for(lambda: found(Settled) is not None)
    return found(Opened), found(Settled)


def test_its_own_key_is_told_and_nothing_is_charged(gateway: Gateway) -> None:
    gateway.upstream.script = completion
    opened, ended = settled(gateway, ask(gateway).headers["x-request-id"])
    assert not opened.byok and ended.charge > 0
    bring(gateway, "theirs")
    wait_for(lambda: told(gateway) == "Bearer theirs")
    opened, ended = settled(gateway, ask(gateway).headers["x-request-id"])
    assert opened.byok
    assert (ended.charge, ended.cost, ended.price, ended.cost_price) == (0, 0, "byok", "byok")
    assert ended.usage.output == 3
    bring(gateway)
    wait_for(lambda: told(gateway) is None)


def test_a_refused_key_is_an_error_and_keeps_nobody_else_out(gateway: Gateway) -> None:
    async def script(request: web.Request, seen: Any) -> web.Response:
        if seen.headers.get("Authorization") == "Bearer bad":
            return web.json_response({"error": {"message": "no", "code": "invalid_api_key"}}, status=401)
        response: web.Response = await completion(request, seen)
        return response

    gateway.upstream.script = script
    bring(gateway, "bad")

    def refused() -> bool:
        try:
            ask(gateway)
        except openai.APIStatusError as error:
            assert "the key that your project brought" in error.message
            return True
        return False

    wait_for(refused)
    for _ in range(8):  # more often than opens a circuit
        assert refused()
    bring(gateway)
    wait_for(lambda: not refused())


def test_nothing_is_held_of_a_budget_that_pays_nothing(gateway: Gateway) -> None:
    gateway.upstream.script = completion
    bring(gateway, "theirs")
    wait_for(lambda: told(gateway) == "Bearer theirs")
    budget = LimitRecord("project", "proj_1", None, "spend_nano_usd", 1, period="total", strict=True)
    state = gateway.control._state
    gateway.control.publish(replace(state, revision=state.revision + 1, limits={budget.name: budget}))
    bring(gateway)

    def refused() -> bool:
        try:
            ask(gateway)
        except openai.RateLimitError as error:
            return error.code == "insufficient_quota"
        return False

    wait_for(refused)
    bring(gateway, "theirs")
    wait_for(lambda: not refused())
    assert settled(gateway, ask(gateway).headers["x-request-id"])[1].charge == 0
    state = gateway.control._state
    gateway.control.publish(replace(state, revision=state.revision + 1, limits={}, own_keys={}))
