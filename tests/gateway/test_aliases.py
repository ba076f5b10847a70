"""Virtual models through a running gateway: who answers, what is told, who may ask, and what a copy never does."""

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anthropic
import httpx2
import msgspec
import openai
import pytest
from aiohttp import web
from tests.gateway.conftest import KEY, Gateway, Loop, completion, key_record, running_gateway, wait_for

from tokenworks.journal.records import Opened, Settled
from tokenworks.snapshot.records import (
    AliasRecord,
    CredentialRecord,
    GuardrailRecord,
    LimitRecord,
    LimitsRecord,
    PriceRecord,
    ResidencyRecord,
    SinkRecord,
)
from tokenworks.snapshot.residency import OWN
from tokenworks.snapshot.sealing import read_cluster_key, seal

CHAT = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}
ONLY_ALIAS, ONLY_MODEL = "sk-tw-only-alias", "sk-tw-only-model"
HTTP = httpx2.Client(timeout=20)
PATIENT = LimitsRecord(connect=20, first_token=60, idle=60, total=60)
"""Copies that a test holds up do not end before it lets them go."""
RATES = {"input": 1_000_000_000, "output": 2_000_000_000}


@pytest.fixture(scope="module")
def running(servers: Loop) -> Iterator[Gateway]:
    with running_gateway(servers, "--keep-alive", "0.4") as gateway:
        state = gateway.control._state
        keys = [key_record(ONLY_ALIAS, models=("chat",)), key_record(ONLY_MODEL, models=("assistant", "ours"))]
        models = dict(state.models)
        [target] = models["assistant"].targets
        costed = msgspec.structs.replace(target, model="model-s", costs=(PriceRecord(RATES, id="cost_1"),))
        models["tried"] = msgspec.structs.replace(
            models["assistant"], name="tried", targets=(costed,), limits=PATIENT, default=False
        )
        gateway.control._state = replace(
            state, keys={**state.keys, **{each.digest: each for each in keys}}, models=models
        )
        yield gateway
    HTTP.close()


@pytest.fixture
def gateway(running: Gateway) -> Gateway:
    running.upstream.script = completion
    return running


def publish(gateway: Gateway, *aliases: AliasRecord, **changes: Any) -> None:
    """They are in force once this returns."""
    state = gateway.control._state
    marker = AliasRecord(f"revision-{state.revision + 1}", 1, 1, {"to": "assistant"})
    told = {alias.name: alias for alias in (*aliases, marker)}
    held = {"residency": {}, "sinks": {}, "limits": {}, "guardrails": {}} | changes
    gateway.control.publish(replace(state, revision=state.revision + 1, aliases=told, **held))
    wait_for(lambda: marker.name in HTTP.get(f"{gateway.url}/v1/models", headers=bearer(KEY)).text)
    gateway.upstream.seen.clear()
    gateway.control.records.clear()


def chat(version: int = 1, prices: tuple[PriceRecord, ...] = (), **definition: Any) -> AliasRecord:
    return AliasRecord("chat", version, 1, definition, prices)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ask(gateway: Gateway, path: str = "/v1/chat/completions", key: str = KEY, **members: Any) -> httpx2.Response:
    headers = {**bearer(key), **members.pop("headers", {})}
    return HTTP.post(gateway.url + path, headers=headers, json={**CHAT, **members})


def models_asked(gateway: Gateway) -> list[str]:
    return [seen.body["model"] for seen in gateway.upstream.seen]


def test_who_answers_is_told_with_the_alias_and_its_version(gateway: Gateway) -> None:
    publish(gateway, chat(7, to="assistant"))
    answer = ask(gateway)
    assert answer.status_code == 200, answer.text
    told = {name: answer.headers[f"x-tokenworks-{name}"] for name in ("model", "alias", "alias-version", "provider")}
    assert told == {"model": "model-1", "alias": "chat", "alias-version": "7", "provider": "upstream-a"}
    assert answer.json()["model"] == "model-1"
    opened = gateway.control.opened(answer.headers["x-request-id"])
    assert (opened.model, opened.alias, opened.alias_version, opened.shadow) == ("assistant", "chat", 7, False)
    assert opened.alias_seed > 0
    wait_for(lambda: '"alias_version": 7' in gateway.log() or '"alias_version":7' in gateway.log())
    assert "x-tokenworks-alias" not in ask(gateway, model="assistant").headers


def test_metadata_of_the_body_and_of_the_header_decides(gateway: Gateway) -> None:
    rules = [
        {"name": "gold", "when": {"metadata": {"tier": ["gold", "platinum"]}}, "to": "tried"},
        {"name": "pilot", "when": {"metadata": {"user_id": {"prefix": "pilot-"}}}, "to": "tried"},
        {"name": "streams", "when": {"needs": "stream", "key": "nobody"}, "to": "down"},
    ]
    publish(gateway, chat(to="assistant", rules=rules))
    said: list[dict[str, Any]] = [
        {"metadata": {"tier": "gold"}},
        {"headers": {"x-tokenworks-metadata": '{"tier": "platinum"}'}},
        {"headers": {"x-tokenworks-metadata": "team=blue, tier=gold"}},
        {"metadata": {"tier": "lead"}, "headers": {"x-tokenworks-metadata": "tier=gold"}},
        {"path": "/v1/messages", "max_tokens": 9, "metadata": {"user_id": "pilot-1"}},
    ]
    for members in said:
        assert ask(gateway, **members).headers["x-tokenworks-model"] == "model-s", members
    for members in ({}, {"metadata": {"tier": "silver"}}, {"stream": True}):
        answer = ask(gateway, **members)
        assert answer.headers["x-tokenworks-model"] == "model-1", members
    assert all("tier" not in json.dumps(seen.headers).lower() for seen in gateway.upstream.seen)
    wrong = ask(gateway, headers={"x-tokenworks-metadata": "gold"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-tokenworks-metadata")


def test_a_conversation_does_not_flip_and_a_growing_canary_only_takes_new_ones(gateway: Gateway) -> None:
    def answered(percent: float) -> set[int]:
        publish(gateway, chat(to="assistant", canary={"to": "tried", "percent": percent}))
        taken = set()
        for number in range(24):
            first = {"role": "user", "content": f"Conversation {number}"}
            turns = [first], [first, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "More."}]
            told = {ask(gateway, messages=messages).headers["x-tokenworks-model"] for messages in turns}
            assert len(told) == 1, "both turns are answered by one model"
            taken |= {number} if told == {"model-s"} else set()
        return taken

    few, more = answered(25), answered(60)
    assert few < more < set(range(24))


def test_suffixes_pins_and_fallbacks_go_with_it(gateway: Gateway) -> None:
    publish(gateway, chat(to="rescued"), AliasRecord("broken", 1, 1, {"to": "down"}))
    assert ask(gateway, model="chat:floor").status_code == 200
    pinned = ask(gateway, model="upstream-a/chat")
    assert (pinned.headers["x-tokenworks-provider"], pinned.headers["x-tokenworks-attempts"]) == ("upstream-a", "1")
    assert ask(gateway, model="upstream-t/chat").json()["error"]["code"] == "no_eligible_provider"
    answer = ask(gateway, model="broken", models=["chat"])
    assert (answer.status_code, answer.headers["x-tokenworks-alias"]) == (200, "chat")
    failed = ask(gateway, model="broken")
    assert (failed.status_code, failed.headers["x-tokenworks-alias"]) == (503, "broken")


def test_a_key_must_allow_what_its_caller_names(gateway: Gateway) -> None:
    publish(gateway, chat(to="assistant"))
    assert ask(gateway, key=ONLY_ALIAS).status_code == 200
    refused = ask(gateway, key=ONLY_MODEL)
    assert (refused.status_code, refused.json()["error"]["message"]) == (
        403,
        "This API key may not use the model 'chat'.",
    )
    assert ask(gateway, key=ONLY_MODEL, model="assistant").status_code == 200
    assert ask(gateway, key=ONLY_ALIAS, model="assistant").status_code == 403
    listed = HTTP.get(f"{gateway.url}/v1/models", headers=bearer(ONLY_ALIAS)).json()["data"]
    assert [each["id"] for each in listed] == ["chat"]
    assert HTTP.get(f"{gateway.url}/v1/models/chat", headers=bearer(ONLY_ALIAS)).json()["id"] == "chat"
    assert HTTP.get(f"{gateway.url}/v1/models/chat", headers=bearer(ONLY_MODEL)).status_code == 403


def test_it_costs_what_the_model_costs_that_answers_or_its_own_price(gateway: Gateway) -> None:
    publish(gateway, chat(to="assistant"))
    usual = ask(gateway).json()["usage"]["cost"]
    assert usual == ask(gateway, model="assistant").json()["usage"]["cost"] > 0
    publish(gateway, chat(to="assistant", prices=(PriceRecord(RATES, id="price_own"),)))
    answer = ask(gateway)
    assert answer.json()["usage"]["cost"] == pytest.approx((12 * 1 + 3 * 2) / 1e6)
    assert gateway.control.settled(answer.headers["x-request-id"]).price == "price_own"


def test_what_leads_nowhere_is_our_fault_and_said(gateway: Gateway) -> None:
    circle = AliasRecord("a", 1, 1, {"to": "b"}), AliasRecord("b", 1, 1, {"to": "a"})
    publish(gateway, chat(to="gone"), *circle, AliasRecord("newer", 1, 1, {"to": "m", "unheard-of": 1}))
    for model in ("chat", "a", "newer"):
        answer = ask(gateway, model=model)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "alias_broken"), answer.text
    assert ask(gateway, model="chat", models=["assistant"]).status_code == 200


def test_an_explanation_shows_every_step(gateway: Gateway) -> None:
    rules = [{"name": "gold", "when": {"metadata": {"tier": "gold"}}, "to": "inner"}]
    inner = AliasRecord("inner", 4, 1, {"to": {"tried": 1}, "shadow": {"to": "ours", "percent": 100}})
    publish(gateway, chat(3, to="assistant", rules=rules), inner)
    answer = ask(gateway, "/v1/route:explain", metadata={"tier": "gold"})
    [plan] = answer.json()["models"]
    first, second = plan["alias"].pop("steps")
    assert plan["alias"] == {"name": "chat", "version": 3, "shadow": "ours"}
    assert 0 <= first.pop("bucket") < 1_000_000
    assert first == {"alias": "chat", "version": 3, "rule": "gold", "to": "inner"}
    assert (second["alias"], second["rule"], second["to"], plan["model"]) == ("inner", None, "tried", "tried")
    assert plan["order"] == ["upstream-a/model-s"]
    assert not gateway.upstream.seen


def test_official_clients_name_it_like_any_model(gateway: Gateway) -> None:
    publish(gateway, chat(to="assistant", rules=[{"when": {"metadata": {"tier": "gold"}}, "to": "tried"}]))
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        assert "chat" in [model.id for model in client.models.list()]
        answer = client.chat.completions.create(**CHAT, metadata={"tier": "gold"}, store=False)  # type: ignore[call-overload]
        assert answer.choices[0].message.content == "Hello!"
        chunks = list(client.chat.completions.create(**CHAT, stream=True))  # type: ignore[call-overload]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello there!"
    with anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as other:
        message = other.messages.create(model="chat", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
        assert message.content[0].type == "text"
        assert models_asked(gateway) == ["model-s", "model-1", "model-1"]


SHADOW = {"to": "tried", "percent": 100}


def shadow_records(gateway: Gateway) -> list[tuple[Opened, Settled]]:
    opened = [each for each in gateway.control.records if isinstance(each, Opened) and each.shadow]
    settled = {each.request_id: each for each in gateway.control.records if isinstance(each, Settled)}
    return [(each, settled[each.request_id]) for each in opened if each.request_id in settled]


def counted(gateway: Gateway, outcome: str) -> float:
    text = HTTP.get(f"{gateway.url}/metrics").text
    name = f'tokenworks_shadows_total{{alias="chat",outcome="{outcome}"}} '
    return next((float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name)), 0.0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_copy_is_the_operators_and_costs_nobody_else(gateway: Gateway, stream: bool) -> None:
    publish(gateway, chat(2, to="assistant", shadow=SHADOW))
    answer = ask(gateway, stream=stream, temperature=0.5)
    assert (answer.status_code, answer.headers["x-tokenworks-model"]) == (200, "model-1")
    [(opened, settled)] = wait_for(lambda: shadow_records(gateway))
    assert opened.request_id == f"{answer.headers['x-request-id']}.shadow"
    assert (opened.organization_id, opened.project_id, opened.key_id) == ("operator", "shadow", "shadow")
    assert (opened.alias, opened.alias_version, opened.model, opened.upstream_model) == ("chat", 2, "tried", "model-s")
    assert (settled.outcome, settled.charge, settled.price) == ("completed", 0, "shadow")
    assert (settled.cost, settled.cost_price) == (12 * 1000 + 3 * 2000 if not stream else settled.cost, "cost_1")
    assert settled.cost > 0
    original, copy = gateway.upstream.seen
    assert {**original.body, "model": ""} == {**copy.body, "model": ""}


def hanging(released: threading.Event) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        if seen.body["model"] == "model-s":
            await asyncio.to_thread(released.wait, 60)
        return await completion(request, seen)

    return script


def test_a_slow_copy_delays_nobody_and_too_many_are_dropped_and_counted(gateway: Gateway) -> None:
    publish(gateway, chat(to="assistant", shadow={**SHADOW, "copies": 2}))
    released, dropped, completed = threading.Event(), counted(gateway, "dropped"), counted(gateway, "completed")
    gateway.upstream.script = hanging(released)
    try:
        for _ in range(5):
            assert ask(gateway).status_code == 200, "while the copies hang"
        wait_for(lambda: counted(gateway, "dropped") == dropped + 3)
        wait_for(lambda: models_asked(gateway).count("model-s") == 2)
        assert counted(gateway, "completed") == completed
    finally:
        released.set()
    wait_for(lambda: counted(gateway, "completed") == completed + 2)


def refusing_copies(status: int) -> Any:
    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        if seen.body["model"] == "model-s":
            return web.json_response({"error": {"message": "no"}}, status=status, headers={"retry-after": "30"})
        return await completion(request, seen)

    return script


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_a_broken_copy_changes_nothing(gateway: Gateway, status: int) -> None:
    """The model that answers lies at the same upstream: not even its health is touched."""
    publish(gateway, chat(to="assistant", shadow=SHADOW))
    gateway.upstream.script = refusing_copies(status)
    failed = counted(gateway, "failed")
    for number in range(3):
        answer = ask(gateway)
        assert (answer.status_code, answer.headers["x-tokenworks-attempts"]) == (200, "1")
        wait_for(lambda number=number: counted(gateway, "failed") == failed + number + 1)
    assert models_asked(gateway).count("model-s") <= 3, "one attempt each, at the most"


def test_a_key_that_is_refused_to_a_copy_does_not_rest_for_others(gateway: Gateway) -> None:
    state, cluster_key = gateway.control._state, read_cluster_key(gateway.directory / "cluster.key")
    sealed = [seal(cluster_key, "upstream-a", secret) for secret in ("first", "second")]
    keys = tuple(CredentialRecord(f"k{number}", each) for number, each in enumerate(sealed))
    upstream = msgspec.structs.replace(state.upstreams["upstream-a"], credentials=keys)
    upstreams = {**state.upstreams, "upstream-a": upstream}
    publish(gateway, chat(to="assistant", shadow=SHADOW), upstreams=upstreams)

    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        if (seen.body["model"], seen.headers["Authorization"]) == ("model-s", "Bearer first"):
            return web.json_response({"error": {"message": "no"}}, status=401)
        return await completion(request, seen)

    gateway.upstream.script = script
    completed = counted(gateway, "completed")
    for number in range(2):
        assert ask(gateway).status_code == 200
        wait_for(lambda number=number: counted(gateway, "completed") == completed + number + 1)
    told = [(seen.body["model"], seen.headers["Authorization"].partition(" ")[2]) for seen in gateway.upstream.seen]
    assert told == [
        ("model-1", "first"), ("model-s", "first"), ("model-s", "second"), ("model-1", "first"), ("model-s", "second"),
    ]  # fmt: skip
    publish(gateway, upstreams=dict(state.upstreams))


def test_a_copy_goes_nowhere_that_the_policy_of_the_project_forbids(gateway: Gateway) -> None:
    """Its upstream's region is known to nobody; the replica that answers is where it should be."""
    state = gateway.control._state
    here = msgspec.structs.replace(state.upstreams["replica-2"], region="eu")
    held: dict[str, Any] = {
        "residency": {"proj_1": ResidencyRecord("proj_1", regions=("eu",))},
        "sinks": {name: SinkRecord(name, "eu") for name in OWN},
        "upstreams": {**state.upstreams, here.id: here},
    }
    publish(gateway, chat(to="ours", shadow=SHADOW), **held)
    failed = counted(gateway, "failed")
    assert ask(gateway).status_code == 200
    wait_for(lambda: counted(gateway, "failed") == failed + 1)
    assert models_asked(gateway) == ["ours"]


def test_a_copy_goes_nowhere_that_the_caller_forbids(gateway: Gateway) -> None:
    """Who may answer in his place is his to say, and so is who may keep his words."""
    state = gateway.control._state
    quiet = msgspec.structs.replace(state.upstreams["replica-2"], retention=0)
    publish(gateway, chat(to="ours", shadow=SHADOW), upstreams={**state.upstreams, quiet.id: quiet})
    failed, completed = counted(gateway, "failed"), counted(gateway, "completed")
    assert ask(gateway, provider={"zdr": True}).status_code == 200
    wait_for(lambda: counted(gateway, "failed") == failed + 1)
    assert models_asked(gateway) == ["ours"]
    assert ask(gateway, provider={"only": ["local/llama"]}).status_code == 200
    wait_for(lambda: counted(gateway, "completed") == completed + 1)
    assert models_asked(gateway) == ["ours", "ours", "model-s"]
    publish(gateway, upstreams=dict(state.upstreams))


def test_a_copy_says_what_guardrails_of_both_models_let_go_on(gateway: Gateway) -> None:
    """What was taken out of the request is not in its copy, and what was refused is not copied."""
    emails = GuardrailRecord("emails", "redactor", models=("assistant",), entities=("email",))
    words = GuardrailRecord("words", "redactor", models=("tried",), patterns=(("SECRET", "hush-[0-9]+"),))
    stop = GuardrailRecord("stop", "redactor", action="block", models=("assistant",), patterns=(("STOP", "halt"),))
    guardrails = {each.name: each for each in (emails, words, stop)}
    publish(gateway, chat(to="assistant", shadow=SHADOW), guardrails=guardrails)
    completed = counted(gateway, "completed")
    messages = [{"role": "user", "content": "I am ann@example.org, hush-42."}]
    assert ask(gateway, messages=messages).status_code == 200
    wait_for(lambda: counted(gateway, "completed") == completed + 1)
    told = {seen.body["model"]: json.dumps(seen.body) for seen in gateway.upstream.seen}
    assert "ann@" not in told["model-1"]
    assert "hush-42" in told["model-1"]
    assert "ann@" not in told["model-s"]
    assert "hush-42" not in told["model-s"]
    assert ask(gateway, messages=[{"role": "user", "content": "halt"}]).status_code == 400
    assert ask(gateway).status_code == 200
    wait_for(lambda: counted(gateway, "completed") == completed + 2)
    assert models_asked(gateway).count("model-s") == 2


def test_limits_on_what_is_bought_count_copies_and_those_of_callers_do_not(gateway: Gateway) -> None:
    own = LimitRecord("project", "proj_1", None, "requests", 3, period="total")
    worst = (len(json.dumps({**CHAT, "max_tokens": 4}, separators=(",", ":"))) + 64) * 1_000 + 4 * 2_000
    bought = LimitRecord("model", "tried", None, "spend_nano_usd", worst + 17_999, period="total")
    publish(gateway, chat(to="assistant", shadow=SHADOW), limits={each.name: each for each in (own, bought)})
    completed, failed = counted(gateway, "completed"), counted(gateway, "failed")
    for number in range(3):
        answer = ask(gateway, max_tokens=4)
        assert answer.status_code == 200, "the copies take nothing of the project's three requests"
        ended = completed + failed + number + 1
        wait_for(lambda ended=ended: counted(gateway, "completed") + counted(gateway, "failed") == ended)
    assert counted(gateway, "completed") == completed + 1, (
        "it took 18,000 nano-dollars, so there is no room for another"
    )
    assert ask(gateway, max_tokens=4).status_code == 429
