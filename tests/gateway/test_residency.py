"""Residency through a running gateway: nobody else is asked, nothing kept elsewhere, what was proven is told."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from aiohttp import web
from tests.gateway.conftest import KEY, Gateway, Loop, completion, publish_and_wait, running_gateway, wait_for

from tokenworks.core.errors import PermissionDenied
from tokenworks.gateway.admission.residency import Here
from tokenworks.snapshot.records import ResidencyRecord, SinkRecord
from tokenworks.snapshot.residency import CACHE, JOURNAL, LOGS, OWN
from tokenworks.snapshot.state import State

LABELS = {"region": "eu-west", "jurisdiction": "EU", "retention": 0, "trains": False}
CHAT = {"model": "assistant", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def gateway(servers: Loop) -> Iterator[Gateway]:
    with running_gateway(servers, **LABELS) as gateway:
        gateway.upstream.script = completion
        yield gateway


def require(gateway: Gateway, *policies: ResidencyRecord, **sinks: dict[str, Any]) -> None:
    """The policies, and this installation's sinks: where the upstream is, but for those that say otherwise."""
    state = gateway.control._state
    held = {policy.id: policy for policy in policies}
    own = {name: SinkRecord(name, "eu-west", "EU", trains=False) for name in OWN}
    own |= {name: SinkRecord(name, **labels) for name, labels in sinks.items()}
    told = replace(state, revision=state.revision + 1, residency=held, sinks=own)
    publish_and_wait(gateway, told)


def ask(gateway: Gateway, path: str = "/v1/chat/completions", **members: Any) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx2.post(gateway.url + path, headers=headers, json={**CHAT, **members}, timeout=20)


def test_what_is_proven_is_told_on_the_answer_and_in_the_log(gateway: Gateway) -> None:
    require(gateway, ResidencyRecord("proj_1", regions=("eu-west",), no_training=True), ResidencyRecord("proj_2", ()))
    answer = ask(gateway)
    proven = "proj_1: region=eu-west, trains=false"
    assert (answer.status_code, answer.headers["x-tokenworks-residency"]) == (200, proven)
    wait_for(lambda: json.dumps(proven)[1:-1] in gateway.log())
    require(gateway)
    assert "x-tokenworks-residency" not in ask(gateway).headers


@pytest.mark.parametrize(
    "policy",
    [
        ResidencyRecord("proj_1", regions=("us",)),
        ResidencyRecord("org_1", jurisdictions=("CH",)),
        ResidencyRecord("proj_1", regions=("us", "ch")),
    ],
)
def test_nobody_is_asked_who_may_not_be(gateway: Gateway, policy: ResidencyRecord) -> None:
    require(gateway, policy, **{name: {"region": "us", "jurisdiction": "CH"} for name in OWN})
    gateway.upstream.seen.clear()
    for path in ("/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens"):
        refused = ask(gateway, path, **({} if "count" in path else {"max_tokens": 10}))
        assert refused.status_code == 403, refused.text
        assert "upstream-a is " in refused.json()["error"]["message"]
        assert f"the residency policy of {policy.id}" in refused.text
    assert ask(gateway).json()["error"]["code"] == "residency_denied"
    explained = ask(gateway, "/v1/route:explain").json()["models"][0]
    assert explained["order"] == []
    assert "residency policy" in explained["candidates"][0]["reason"]
    assert not gateway.upstream.seen


def test_a_fallback_is_held_to_it_as_the_first_choice_is(gateway: Gateway) -> None:
    """`rescued` has a second target of unknown region, which is not asked when the first one fails."""

    async def failing(request: web.Request, seen: Any) -> web.StreamResponse:
        return web.json_response({"error": {"message": "no"}}, status=500)

    require(gateway, ResidencyRecord("proj_1", regions=("eu-west",)))
    explained = ask(gateway, "/v1/route:explain", model="rescued").json()["models"][0]
    assert explained["order"] == ["upstream-a/model-1"]
    assert len(explained["candidates"]) == 2
    gateway.upstream.script = failing
    try:
        failed = ask(gateway, model="rescued")
    finally:
        gateway.upstream.script = completion
    assert failed.status_code >= 500
    assert failed.headers["x-tokenworks-provider"] == "upstream-a"


def test_nothing_is_stored_where_it_may_not_be(gateway: Gateway) -> None:
    require(gateway, ResidencyRecord("proj_1", regions=("eu-west",)), objects={"region": "us"})
    for members in ({}, {"background": True}):
        refused = ask(gateway, "/v1/responses", model="assistant", input="Hi", **members)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "residency_denied"), refused.text
        assert "store: false" in refused.json()["error"]["message"]
    for path in ("/v1/files", "/v1/batches", "/v1/messages/batches"):
        refused = ask(gateway, path)
        assert (refused.status_code, "the sink 'objects' is in us" in refused.text) == (403, True), refused.text
    assert ask(gateway, "/v1/responses", model="assistant", input="Hi", store=False).status_code == 200


@pytest.mark.parametrize("sink", ["database", "journal", "logs", "limits", "payments", "a-collector"])
def test_all_that_is_told_of_every_request_is_held_to_it(gateway: Gateway, sink: str) -> None:
    """Also one that only its operator knows. What nobody states is a no."""
    for labels in ({"region": "us"}, {}):
        require(gateway, ResidencyRecord("proj_1", regions=("eu-west",)), **{sink: labels})
        gateway.upstream.seen.clear()
        for path in ("/v1/chat/completions", "/v1/route:explain"):
            refused = ask(gateway, path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "residency_denied"), refused.text
            assert f"the sink '{sink}' is in {labels.get('region', 'an unknown region')}" in refused.text
        assert not gateway.upstream.seen
    require(gateway, ResidencyRecord("proj_1", retention=0), **{sink: {}})
    assert ask(gateway).status_code == 200  # it is not told what was said, so that it may keep it


def test_an_address_that_a_caller_names_gets_nothing_that_the_policy_keeps_here(gateway: Gateway) -> None:
    body = {"version": "assistant", "input": {"prompt": "Hi"}, "webhook": "https://hooks.example.com/"}
    require(gateway, ResidencyRecord("proj_1", regions=("eu-west",)))
    refused = ask(gateway, "/v1/predictions", **body)
    assert (refused.status_code, "the sink 'webhooks' is in an unknown region" in refused.text) == (403, True)
    body.pop("webhook")
    assert ask(gateway, "/v1/predictions", **body).status_code != 403


def test_the_evidence_is_kept_with_the_attempt(gateway: Gateway) -> None:
    require(gateway, ResidencyRecord("proj_1", regions=("eu-west",), no_training=True))
    request_id = ask(gateway, stream=True).headers["x-request-id"]
    assert gateway.control.opened(request_id).residency == "proj_1: region=eu-west, trains=false"
    require(gateway)
    assert gateway.control.opened(ask(gateway).headers["x-request-id"]).residency == ""


def test_a_gateway_elsewhere_keeps_its_journal_there() -> None:
    own = {name: SinkRecord(name, "eu-west", "EU") for name in OWN}
    policy, state = ResidencyRecord("proj_1", regions=("eu-west",)), State(sinks=own)
    Here().require_told([policy], state)
    there = Here("us", keeps=(JOURNAL, LOGS, CACHE))
    there.require_told([], state)
    with pytest.raises(PermissionDenied, match="the sink 'journal' is in us"):
        there.require_told([policy], state)
    assert there.uncacheable([policy], state)
    assert not Here("us").uncacheable([policy], state)
    with pytest.raises(PermissionDenied, match="under an unknown jurisdiction"):  # never half its own and half not
        Here("eu-west").require_told([ResidencyRecord("proj_1", jurisdictions=("EU",))], state)
