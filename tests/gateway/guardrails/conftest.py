"""A real gateway with guardrails, and an upstream that speaks every protocol: its bytes are written by the codecs."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx2
import msgspec
import pytest
from aiohttp import web
from tests.gateway.conftest import KEY, Gateway, Loop, running_gateway, wait_for

from tokenworks.core.events import Event, Finished, FinishReason, Started, TextDelta, UsageReport
from tokenworks.core.request import Conversation, Prompts, Request
from tokenworks.core.usage import Usage
from tokenworks.protocols import codec
from tokenworks.snapshot.records import AliasRecord, GuardrailRecord, PolicyRecord, ResidencyRecord, UpstreamRecord
from tokenworks.snapshot.sealing import read_cluster_key

PROTOCOLS = {
    "/v1/chat/completions": "openai_chat",
    "/v1/messages": "anthropic_messages",
    "/v1/responses": "openai_responses",
    "/v1/completions": "openai_completions",
}
ALL = ("private_key", "jwt", "api_key", "email", "iban", "credit_card", "us_ssn", "ip_address", "phone")
MAIL = "alice@example.com"
CARD = "4111 1111 1111 1111"

Say = Callable[[str], list[Event]]
"""What it got, as text -> what it says."""


def pii(**members: Any) -> GuardrailRecord:
    return GuardrailRecord(
        **{"name": "pii", "kind": "redactor", "everybody": True, "entities": ALL, "phone_regions": ("US",), **members}
    )


def words(text: str, size: int = 3) -> list[Event]:
    return [TextDelta(text[at : at + size]) for at in range(0, len(text), size)]


def saying(say: Say, *, cut: bool = False, finish: FinishReason = FinishReason.STOP) -> Any:
    """A script: says it in the protocol it is asked in, streamed or whole. `cut`: and breaks off before the end."""

    async def script(request: web.Request, seen: Any) -> web.StreamResponse:
        spoken = codec(PROTOCOLS[request.path])
        task = Prompts(["x"]) if Prompts in spoken.tasks else Conversation([])
        wish = Request("up", task, spoken.name, stream=bool(seen.body.get("stream")), include_usage=True)
        end = [Finished(finish), UsageReport(Usage(input=12, output=3))]
        events: list[Event] = [Started("up-1", "up"), *say(json.dumps(seen.body, ensure_ascii=False))]
        if not wish.stream:
            body = spoken.encode_response(wish, events + end, "up-1", 1)
            return web.Response(body=body, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        writer = spoken.stream_writer(wish, "up-1", 1)
        for event in events if cut else events + end:
            if piece := writer.feed(event):
                await response.write(piece)
        if cut:
            assert request.transport is not None
            request.transport.abort()
        else:
            await response.write(writer.close())
        return response

    return script


class Guarded:
    """`gateway` with what tests do to it."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.cluster_key = read_cluster_key(gateway.directory / "cluster.key")
        self._first = gateway.control._state

    def use(
        self,
        *guardrails: GuardrailRecord,
        policy: PolicyRecord | None = None,
        residency: ResidencyRecord | None = None,
        aliases: Sequence[AliasRecord] = (),
    ) -> None:
        """These, in their order, and no others; returns when they are in force."""
        control = self.gateway.control
        named = {
            each.name: msgspec.structs.replace(each, position=position) for position, each in enumerate(guardrails)
        }
        models = self._first.models
        if policy is not None:
            models = {name: msgspec.structs.replace(model, policy=policy) for name, model in models.items()}
        url = f"http://127.0.0.1:{self.gateway.upstream.port}/v1"
        same = {"upstream-r", "upstream-m"}
        upstreams = {
            name: UpstreamRecord(name, name, each.protocols, url) if name in same else each
            for name, each in self._first.upstreams.items()
        }
        held = {} if residency is None else {residency.id: residency}
        state = replace(
            control._state,
            aliases={each.name: each for each in aliases},
            residency=held,
            guardrails=named,
            models=models,
            upstreams=upstreams,
        )
        if state == control._state:
            return
        revision = state.revision + 1
        control.publish(replace(state, revision=revision))
        wait_for(lambda: f"tokenworks_snapshot_revision {revision}.0" in self.metrics())

    def metrics(self) -> str:
        return str(httpx2.get(self.gateway.url + "/metrics").text)

    def say(self, say: Say | str, **options: Any) -> None:
        self.gateway.upstream.script = saying((lambda _: words(say)) if isinstance(say, str) else say, **options)

    def ask(self, path: str = "/v1/chat/completions", headers: dict[str, str] | None = None, **body: Any) -> Any:
        """The raw answer."""
        told = {"Authorization": f"Bearer {KEY}", **(headers or {})}
        body = {"model": "assistant", **body}
        if path == "/v1/chat/completions":
            body.setdefault("messages", [{"role": "user", "content": "Hi"}])
        return httpx2.post(self.gateway.url + path, headers=told, json=body, timeout=20)

    @property
    def sent(self) -> str:
        """What the upstream got last."""
        return json.dumps(self.gateway.upstream.seen[-1].body, ensure_ascii=False)

    def settled(self, answer: Any) -> Any:
        return self.gateway.control.settled(answer.headers["x-request-id"])


@pytest.fixture(scope="module")
def shared(servers: Loop) -> Iterator[Guarded]:
    with running_gateway(servers) as gateway:
        yield Guarded(gateway)


@pytest.fixture
def guarded(shared: Guarded) -> Guarded:
    shared.gateway.upstream.seen.clear()
    return shared
