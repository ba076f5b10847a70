"""Replicas as gateways see them: through the snapshot stream, across control's own death."""

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from tokenworks.client import Client
from tokenworks.snapshot.subscriber import Subscriber

MODEL = "smollm2-135m"


@asynccontextmanager
async def _following(process):
    async with Client(process.address, token=process.token) as client:
        subscriber = Subscriber(client)
        subscriber.start()
        try:
            yield subscriber
        finally:
            await subscriber.stop()


async def _until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.01)


def _beat(process, make, id="replica-1", **fields):
    answer = process.internal("PUT", f"/internal/v1/replicas/{id}", make.heartbeat(**fields))
    assert answer.status == 204, answer.raw


def test_a_configured_model_is_there_before_any_replica(control):
    process = control("--local-model", MODEL, "--local-model", "other").start()

    async def work():
        async with _following(process) as gateway:
            await _until(lambda: gateway.state.models)
            model = gateway.state.models[MODEL]
            assert (model.targets, model.default) == ((), True)
            assert model.context_length  # from the catalog
            assert not gateway.state.models["other"].default

    asyncio.run(work())


def test_a_replica_from_its_first_heartbeat_to_its_end(control, make):
    process = control("--local-model", MODEL).start()

    async def work():
        async with _following(process) as gateway:
            _beat(process, make, state="starting", reason="loading weights")
            await _until(lambda: "replica-1" in gateway.state.upstreams)
            upstream = gateway.state.upstreams["replica-1"]
            assert (upstream.local, upstream.state, upstream.reason) == (True, "starting", "loading weights")
            (target,) = gateway.state.models[MODEL].targets
            assert (target.upstream, target.model) == ("replica-1", MODEL)

            _beat(process, make, context_length=2048, max_output=100, capabilities=["tools"], quirks=["no_min_tokens"])
            await _until(lambda: gateway.state.upstreams["replica-1"].state == "ready")
            model = gateway.state.models[MODEL]
            assert (model.context_length, model.max_output, model.capabilities) == (2048, 100, ("tools",))
            assert gateway.state.upstreams["replica-1"].quirks == ("no_min_tokens",)

            revision = gateway.state.revision
            _beat(process, make, context_length=2048, max_output=100, capabilities=["tools"], quirks=["no_min_tokens"])
            assert process.internal("DELETE", "/internal/v1/replicas/replica-1").status == 204
            await _until(lambda: "replica-1" not in gateway.state.upstreams)
            assert gateway.state.revision == revision + 1, "a heartbeat that says nothing new is not published"
            assert gateway.state.models[MODEL].targets == ()
            assert process.internal("DELETE", "/internal/v1/replicas/replica-1").status == 204

    asyncio.run(work())


def test_silence_fails_a_replica_and_a_restart_forgives_nothing(control, make):
    process = control("--local-model", MODEL).start()
    created = process.admin("GET", "/admin/v1/models").json["data"][0]["created"]
    _beat(process, make)
    _beat(process, make, id="stray", model="not-configured")
    process.close()
    process.start()
    models = {model["id"]: model for model in process.admin("GET", "/admin/v1/models").json["data"]}
    assert models[MODEL]["replicas"][0]["state"] == "ready"
    assert models[MODEL]["created"] == created
    assert models["not-configured"]["targets"][0]["upstream"] == "stray"

    async def work():
        async with _following(process) as gateway:
            await _until(lambda: gateway.state.upstreams)
            await _until(lambda: gateway.state.upstreams["replica-1"].state == "failed")
            assert gateway.state.upstreams["replica-1"].reason == "no heartbeat for 5 s"
            await _until(lambda: "stray" not in gateway.state.upstreams)
            assert "not-configured" not in gateway.state.models
            _beat(process, make)
            await _until(lambda: gateway.state.upstreams["replica-1"].state == "ready")

    asyncio.run(work())


def test_a_key_made_or_revoked_is_in_force_within_a_second(control):
    process = control().start()

    async def work():
        async with _following(process) as gateway:
            await _until(lambda: len(gateway.state.keys) == 1)
            key = process.admin("POST", "/admin/v1/keys", {"name": "n", "models": ["m"]}).json
            await _until(lambda: any(each.id == key["id"] for each in gateway.state.keys.values()), seconds=1)
            process.admin("DELETE", f"/admin/v1/keys/{key['id']}")
            await _until(lambda: len(gateway.state.keys) == 1, seconds=1)

    asyncio.run(work())


def test_a_revocation_outlives_a_kill(control):
    process = control().start()
    key = process.admin("POST", "/admin/v1/keys", {"name": "n"}).json
    process.admin("DELETE", f"/admin/v1/keys/{key['id']}")
    process.close()
    process.start()

    async def work():
        async with _following(process) as gateway:
            await _until(lambda: gateway.state.keys)
            assert key["id"] not in {each.id for each in gateway.state.keys.values()}

    asyncio.run(work())


def test_a_stream_ends_with_a_graceful_stop(control):
    process = control().start()

    async def work():
        client = Client(process.address, token=process.token)
        async with client, client.stream("GET", "/internal/v1/snapshot") as response:
            await response.content.readany()
            assert await asyncio.to_thread(process.stop) == 0
            while await response.content.readany():
                pass

    asyncio.run(work())


@pytest.mark.parametrize(
    "change, param",
    [
        ({"state": "fine"}, "state"),
        ({"protocols": []}, "protocols"),
        ({"model": ""}, "model"),
        ({"context_length": 0}, "context_length"),
        ({"context_length": "2048"}, "context_length"),
    ],
)
def test_a_heartbeat_that_makes_no_sense(running, make, change, param):
    answer = running.internal("PUT", "/internal/v1/replicas/r", {**make.heartbeat(), **change})
    assert (answer.status, answer.error["param"]) == (400, param)
