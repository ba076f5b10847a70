"""The hook that asks a service: what it is asked, what its answers do, and what becomes of requests when it fails."""

import asyncio
import json
import re
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from tests.gateway.conftest import Loop, Upstream
from tests.gateway.guardrails.conftest import Guarded, pii, words

from tokenworks.gateway.guardrails.http import Verdict
from tokenworks.protocols.webhooks import verify
from tokenworks.snapshot.records import GuardrailRecord, ResidencyRecord
from tokenworks.snapshot.sealing import guardrail, seal

PAGE = (Path(__file__).parents[3] / "docs" / "guardrails.md").read_text()
SECRET = "whsec_" + b64encode(b"0123456789abcdef0123456789abcdef").decode()
STORY = "Once upon a time there was a fox. " * 30


class Service(Upstream):
    """Remembers what it was asked; `answer` makes a verdict of it."""

    def answers(self, verdict: Any) -> None:
        async def script(request: web.Request, seen: Any) -> web.StreamResponse:
            made = verdict(seen.body) if callable(verdict) else verdict
            return made if isinstance(made, web.StreamResponse) else web.json_response(made)

        self.seen.clear()
        self.script = script


@pytest.fixture(scope="module")
def hook(servers: Loop) -> Iterator[Service]:
    service = Service(servers)
    yield service
    service.close()


def asking(hook: Service, name: str, **members: Any) -> GuardrailRecord:
    url = f"http://127.0.0.1:{hook.port}/check"
    return GuardrailRecord(**{"name": name, "kind": "http", "everybody": True, "url": url, **members})


def upper(body: dict[str, Any]) -> dict[str, Any]:
    return {"action": "redact", "texts": [text.replace("fox", "FOX") for text in body["texts"]]}


def test_the_page_shows_what_is_sent_and_what_may_be_answered(guarded: Guarded, hook: Service) -> None:
    sent, *answers = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    for line in answers[0].strip().splitlines():
        hook.answers(msgspec.to_builtins(msgspec.json.decode(line, type=Verdict)))
        guarded.say("Once upon a time there was a fox.")
        guarded.use(asking(hook, "page", phase="after"))
        answer = guarded.ask()
        assert answer.status_code == 200
        assert list(json.loads(sent)) == list(hook.seen[0].body)
    assert text_of(answer) == ""  # the last of them blocks


def text_of(answer: Any) -> str:
    if not answer.text.startswith("data:"):
        return str(answer.json()["choices"][0]["message"]["content"])
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk.get("choices"))


def test_what_it_is_told_and_how_it_is_signed(guarded: Guarded, hook: Service) -> None:
    secret = seal(guarded.cluster_key, guardrail("signed"), SECRET)
    hook.answers({"action": "allow"})
    guarded.say("Good day.")
    guarded.use(pii(phase="before"), asking(hook, "signed", secret=secret))
    answer = guarded.ask(
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a@b.example"}]
    )
    assert answer.status_code == 200
    before, after = hook.seen
    told = {**before.body, "key_id": "", "request_id": ""}
    assert told == {
        "guardrail": "signed",
        "phase": "before",
        "request_id": "",
        "organization_id": "org_1",
        "project_id": "proj_1",
        "key_id": "",
        "model": "assistant",
        "texts": ["Be brief.", "[EMAIL_1]"],
    }
    assert before.body["request_id"] == answer.headers["x-request-id"]
    assert (after.body["texts"], after.body["choice"], after.body["kind"], after.body["final"]) == (
        ["Good day."],
        0,
        "text",
        True,
    )
    for seen in (before, after):
        raw = json.dumps(seen.body, separators=(",", ":"), ensure_ascii=False).encode()
        verify(SECRET, seen.headers, raw, time.time())


@pytest.mark.parametrize("stream", [False, True])
def test_it_changes_requests_and_answers(guarded: Guarded, hook: Service, stream: bool) -> None:
    """A stream is asked about by the sentence: some of it is out before its end has come."""
    hook.answers(upper)
    guarded.say(lambda _: words(STORY))
    guarded.use(asking(hook, "caps"))
    answer = guarded.ask(messages=[{"role": "user", "content": "fox?"}], stream=stream)
    assert text_of(answer) == STORY.replace("fox", "FOX")
    assert '"FOX?"' in guarded.sent
    parts = [seen.body["texts"][0] for seen in hook.seen[1:]]
    assert "".join(parts) == STORY
    assert all(len(part) < 400 for part in parts)
    assert guarded.settled(answer).guardrails == f"caps:redact={len(parts) + 1}"


@pytest.mark.parametrize("stream", [False, True])
def test_it_blocks(guarded: Guarded, hook: Service, stream: bool) -> None:
    def no_foxes(body: dict[str, Any]) -> dict[str, Any]:
        bad = any("wolf" in text for text in body["texts"])
        return {"action": "block", "reason": "no wolves, please."} if bad else {"action": "allow"}

    hook.answers(no_foxes)
    guarded.use(asking(hook, "wolves"))
    guarded.say(lambda _: words(STORY + "Then came a wolf. It was grey."))
    answer = guarded.ask(stream=stream)
    told = text_of(answer)
    assert STORY.startswith(told)
    assert len(told) > 500
    assert '"finish_reason":"content_filter"' in answer.text.replace(" ", "")
    assert guarded.settled(answer).finish_reason == "content_filter"
    refused = guarded.ask(messages=[{"role": "user", "content": "a wolf"}], stream=stream)
    assert refused.status_code == 400
    assert "'wolves' refuses this request: no wolves, please." in refused.json()["error"]["message"]


async def _slow() -> web.Response:
    await asyncio.sleep(3)
    return web.json_response({"action": "allow"})


BROKEN = {
    "garbled": lambda _: web.Response(text="{"),
    "another word": {"action": "perhaps"},
    "too few texts": {"action": "redact", "texts": []},
    "an error": lambda _: web.Response(status=500),
    "elsewhere": lambda _: web.Response(status=302, headers={"location": "http://127.0.0.1:1/"}),
}


@pytest.mark.parametrize("how", [*BROKEN, "slow", "down"])
def test_what_happens_when_it_fails(guarded: Guarded, hook: Service, how: str) -> None:
    async def slow(request: web.Request, seen: Any) -> web.StreamResponse:
        return await _slow()

    if how == "slow":
        hook.script = slow
    elif how in BROKEN:
        hook.answers(BROKEN[how])
    url = {"url": "http://127.0.0.1:9/"} if how == "down" else {}
    guarded.say("Fine.")
    guarded.use(asking(hook, f"open {how}", on_failure="open", timeout=0.2, **url))
    answer = guarded.ask()
    assert (answer.status_code, text_of(answer)) == (200, "Fine.")
    assert guarded.settled(answer).guardrails == f"open {how}:failed=2"
    assert f'action="failed",entity="",guardrail="open {how}",phase="after"' in guarded.metrics()

    guarded.use(asking(hook, f"closed {how}", timeout=0.2, **url))
    for stream in (False, True):
        refused = guarded.ask(stream=stream)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "guardrail_unavailable")
        assert f"'closed {how}'" in refused.json()["error"]["message"]
        assert int(refused.headers["retry-after"]) >= 1

    guarded.use(asking(hook, f"after {how}", timeout=0.2, phase="after", **url))
    for stream in (False, True):
        broken = guarded.ask(stream=stream)
        assert "guardrail_unavailable" in broken.text
        assert "Fine" not in broken.text
        assert "[DONE]" not in broken.text


def test_one_that_is_down_costs_its_time_limit_a_few_times_only(guarded: Guarded, hook: Service) -> None:
    async def hanging(request: web.Request, seen: Any) -> web.StreamResponse:
        return await _slow()

    hook.seen.clear()
    hook.script = hanging
    guarded.say("Fine.")
    guarded.use(asking(hook, "resting", on_failure="open", phase="before", timeout=0.2))
    for _ in range(25):
        assert guarded.ask().status_code == 200
    assert 3 <= len(hook.seen) < 15
    hook.answers({"action": "block"})
    for _ in range(200):  # one of them finds out that it is back
        if guarded.ask().status_code == 400:
            break
        time.sleep(0.05)
    assert guarded.ask().status_code == 400


def test_arguments_of_a_call_are_asked_about_as_a_whole(guarded: Guarded, hook: Service) -> None:
    from tokenworks.core.events import FinishReason, ToolCallDelta

    arguments = json.dumps({"text": STORY})
    hook.answers(upper)
    guarded.use(asking(hook, "calls", phase="after"))
    pieces = [ToolCallDelta(0, arguments[at : at + 9]) for at in range(0, len(arguments), 9)]
    guarded.say(lambda _: [ToolCallDelta(0, "", "c1", "tell"), *pieces], finish=FinishReason.TOOL_CALLS)
    answer = guarded.ask(stream=True, tools=[{"type": "function", "function": {"name": "tell"}}])
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    calls = [call for c in chunks if c["choices"] for call in c["choices"][0]["delta"].get("tool_calls") or []]
    told = "".join(call["function"].get("arguments") or "" for call in calls)
    assert json.loads(told) == {"text": STORY.replace("fox", "FOX")}
    assert [seen.body["texts"] for seen in hook.seen] == [[arguments]]
    assert hook.seen[0].body["kind"] == "call"


def test_nobody_is_asked_whose_labels_do_not_prove_the_residency_policy(guarded: Guarded, hook: Service) -> None:
    hook.answers({"action": "allow"})
    guarded.say("Fine.")
    policy = ResidencyRecord("proj_1", jurisdictions=("EU",), retention=0)
    guarded.use(asking(hook, "abroad"), residency=policy)
    refused = guarded.ask()
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "residency_denied"), refused.text
    assert not hook.seen
    assert not guarded.gateway.upstream.seen
    guarded.use(asking(hook, "at home", jurisdiction="EU", retention=0), residency=policy)
    assert "guardrail" not in guarded.ask().text  # whoever else is not where it should be
    guarded.use(asking(hook, "at home", jurisdiction="EU", retention=0))
    assert guarded.ask().status_code == 200
    assert hook.seen
