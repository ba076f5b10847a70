"""A real gateway in front of two chaos servers; models are made as tests need them."""

import http.client
import itertools
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tokenworks.chaos.answers import TEXT
from tokenworks.chaos.server import ChaosServer
from tokenworks.journal.records import Settled
from tokenworks.protocols import codec
from tokenworks.snapshot.records import (
    LimitsRecord,
    ModelRecord,
    PolicyRecord,
    PriceRecord,
    TargetRecord,
    UpstreamRecord,
)
from tokenworks.snapshot.state import State

KEY = "sk-tw-test-key"
LIMITS = LimitsRecord(connect=0.5, first_token=0.4, idle=0.4, total=3.0)
PRICE = PriceRecord({"input": 1_000_000, "output": 1_000_000_000}, id="p1")
FORGETFUL = PolicyRecord(retries=1, hedge=0, breaker=0)
PATHS = {
    "openai_chat": "/v1/chat/completions",
    "anthropic_messages": "/v1/messages",
    "openai_responses": "/v1/responses",
}


@dataclass
class Told:
    """What a client got: `text` is what it would show, `complete` whether it would take it for a whole answer."""

    status: int
    headers: dict[str, str]
    raw: bytes
    text: str = ""
    complete: bool = False
    error: dict[str, Any] = field(default_factory=dict)
    usage: tuple[int, int] = (0, 0)
    calls: str = ""

    def named(self, what: str) -> str:
        """Of whom answered: the comment at the end wins over the head, which left before it was known."""
        comment = re.findall(rb"^: x-tokenworks-.*$", self.raw, re.M)
        found = dict(part.split("=", 1) for part in comment[-1].decode()[2:].split(", ")) if comment else self.headers
        return found[f"x-tokenworks-{what}"]

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]


@dataclass
class Place:
    gateway: Any
    servers: dict[str, ChaosServer]
    loop: Any
    state: State
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def model(
        self,
        *targets: str,
        policy: PolicyRecord = FORGETFUL,
        limits: LimitsRecord = LIMITS,
        windows: tuple[int | None, ...] = (),
    ) -> str:
        """The name of a new model with these targets ("upstream/fault") in their order, and their context lengths."""
        name = f"model-{next(self.numbers)}"
        sizes = windows or (None,) * len(targets)
        records = tuple(
            TargetRecord(*target.split("/", 1), context_length=size)
            for target, size in zip(targets, sizes, strict=True)
        )
        model = ModelRecord(name, 1, records, limits, (PRICE,), policy=policy)
        models = {**self.state.models, name: model}
        self.state = changed(self.state, models=models)
        self.gateway.control.publish(self.state)
        deadline = time.monotonic() + 10
        while name not in self.names():
            assert time.monotonic() < deadline
        return name

    def names(self) -> list[str]:
        return [model["id"] for model in json.loads(self.call("GET", "/v1/models").raw)["data"]]

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Told:
        host, port = self.gateway.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        headers |= {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return Told(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def ask(self, model: str, protocol: str = "openai_chat", *, stream: bool = True, **members: Any) -> Told:
        body: dict[str, Any] = {"model": model, "stream": stream, "max_tokens": 100}
        question = [{"role": "user", "content": f"A fox? {next(self.numbers)}"}]
        body |= {"input": question} if protocol == "openai_responses" else {"messages": question}
        if protocol == "openai_responses":
            body["max_output_tokens"] = body.pop("max_tokens")
        if protocol == "openai_chat" and stream:
            body["stream_options"] = {"include_usage": True}
        told = self.call("POST", PATHS[protocol], body | members)
        return read(told, protocol, stream)

    def attempts(self, told: Told) -> list[Any]:
        """How each attempt was settled, in their order."""
        expected = int(told.named("attempts"))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            records = [r for r in self.gateway.control.records if r.request_id == told.request_id]
            settled = [record for record in records if isinstance(record, Settled)]
            if len(settled) == expected or (told.error and len(settled) > expected):
                return sorted(settled, key=lambda record: record.attempt)
            time.sleep(0.02)
        raise AssertionError(f"{len(settled)} of {expected} attempts were settled")


def changed(state: State, **changes: Any) -> State:
    return replace(state, revision=state.revision + 1, **changes)


def read(told: Told, protocol: str, stream: bool) -> Told:
    """As an official client would: through our own reader of the protocol, which refuses what is garbled or cut."""
    found = codec(protocol)
    if told.status != 200:
        told.error = json.loads(told.raw)["error"]
        return told
    if not stream:
        events = found.read_response(told.raw)
    else:
        reader = found.stream_reader()
        events = reader.feed(told.raw) + reader.close()
    for event in events:
        kind = type(event).__name__
        if kind == "TextDelta":
            told.text += event.text
        elif kind == "ToolCallDelta":
            told.calls += event.arguments
        elif kind == "Finished":
            told.complete = True
        elif kind == "UsageReport":
            told.usage = (event.usage.prompt, event.usage.output)
        elif kind == "Failed":
            code = re.findall(rb'"code":"([a-z_]+)"', told.raw)[-1].decode()
            told.error = {"code": code, "message": event.error.message}
    return told


@pytest.fixture(scope="module")
def place(shared_gateway: Any, servers: Any) -> Iterator[Place]:
    """`a` goes on with nothing, `b` with a prefill, `m` speaks Messages: each on a chaos server of its own. `r` is `a`,
    and speaks Responses, too."""
    chaos = {name: ChaosServer(pace=0.002) for name in ("a", "b", "m")}
    ports = {name: servers.call(server.start()) for name, server in chaos.items()}
    upstreams = {
        name: UpstreamRecord(
            name,
            f"provider-{name}",
            ("anthropic_messages",) if name == "m" else ("openai_chat",),
            f"http://127.0.0.1:{port}/v1",
            quirks=("continues_prefill",) if name == "b" else (),
        )
        for name, port in ports.items()
    }
    spoken = ("openai_chat", "openai_responses")
    upstreams["r"] = UpstreamRecord("r", "provider-r", spoken, f"http://127.0.0.1:{ports['a']}/v1")
    upstreams["tls"] = UpstreamRecord("tls", "provider-tls", ("openai_chat",), f"https://127.0.0.1:{ports['a']}/v1")
    upstreams["gone"] = UpstreamRecord("gone", "provider-gone", ("openai_chat",), "http://127.0.0.1:9/v1")
    state = shared_gateway.control._state
    merged = {**state.upstreams, **upstreams}
    yield Place(shared_gateway, chaos, servers, changed(state, upstreams=merged))
    for server in chaos.values():
        servers.call(server.close())


@pytest.fixture
def whole_text() -> str:
    return TEXT
