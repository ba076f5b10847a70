"""A real gateway process, a control that is only its contracts, and upstreams that are bytes over real sockets."""

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from aiohttp import web

from tokenworks.journal.framing import read_batch
from tokenworks.journal.records import Opened, Record, Settled
from tokenworks.snapshot.publisher import Publisher
from tokenworks.snapshot.records import (
    FREE,
    CredentialRecord,
    KeyRecord,
    LimitsRecord,
    ModelRecord,
    PolicyRecord,
    PriceRecord,
    TargetRecord,
    UpstreamRecord,
)
from tokenworks.snapshot.sealing import read_cluster_key, seal
from tokenworks.snapshot.state import State

T = TypeVar("T")

ONE_TRY = PolicyRecord(retries=0, hedge=0, breaker=0)
"""Each test sees its own upstream failing, not those before it. tests/gateway/failover has the rest."""
KEY = "sk-tw-test-key"
LIMITED_KEY = "sk-tw-limited-key"
EXPIRED_KEY = "sk-tw-expired-key"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Loop:
    """An event loop in a thread, for servers that live beside synchronous tests."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@dataclass
class Seen:
    """One request that reached an upstream; `closed` is set when its connection went away early."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    closed: threading.Event = field(default_factory=threading.Event)


Script = Callable[[web.Request, "Seen"], Any]


class Upstream:
    """Plays what a test tells it to: `script` is a coroutine function (request, seen) -> response."""

    def __init__(self, loop: Loop) -> None:
        self.port = free_port()
        self.seen: list[Seen] = []
        self.script: Script = completion
        self._loop = loop
        loop.call(self._start())

    async def _start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        seen = Seen(request.path, dict(request.headers), json.loads(await request.read() or b"{}"))
        self.seen.append(seen)
        try:
            return await self.script(request, seen)
        except (asyncio.CancelledError, ConnectionError):
            seen.closed.set()
            raise

    def close(self) -> None:
        self._loop.call(self._runner.cleanup())


def answer_body(text: str = "Hello!", **extra: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-up",
        "object": "chat.completion",
        "created": 1,
        "model": "model-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15},
        **extra,
    }


def chunk(delta: dict[str, Any] | None = None, *, finish: str | None = None, **extra: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    head = {"id": "chatcmpl-up", "object": "chat.completion.chunk", "created": 1, "model": "model-1"}
    return b"data: " + json.dumps({**head, "choices": choices, **extra}).encode() + b"\n\n"


USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 4}}


def chunks(*texts: str) -> list[bytes]:
    return [
        chunk({"role": "assistant", "content": ""}),
        *[chunk({"content": text}) for text in texts],
        chunk({}, finish="stop"),
        chunk(usage=USAGE),
        b"data: [DONE]\n\n",
    ]


async def completion(request: web.Request, seen: Seen) -> web.StreamResponse:
    """The healthy default: a whole answer or a stream of three words."""
    if seen.body.get("stream"):
        return await stream(request, chunks("Hello", " there", "!"))
    return web.json_response(answer_body())


async def stream(request: web.Request, pieces: list[bytes], *, pause: float = 0.0) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
        await asyncio.sleep(pause)
    return response


class ControlStub:
    """The snapshot and journal contracts over a Unix socket; remembers every record that was shipped to it."""

    def __init__(self, loop: Loop, directory: Path, state: State) -> None:
        self.address = f"unix:{directory}/control.sock"
        self.records: list[Record] = []
        self._loop = loop
        self._path = directory / "control.sock"
        self._state = state
        loop.call(self._start())

    async def _start(self) -> None:
        self._publisher = Publisher(self._state)
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/internal/v1/snapshot", self._snapshot)
        app.router.add_get("/internal/v1/keys/{digest}", self._key)
        app.router.add_post("/internal/v1/journal/{gateway}", self._journal)
        app.router.add_route("*", "/admin/{tail:.*}", self._admin)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._path)).start()

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for frame in self._publisher.subscribe():
            await response.write(frame)
        return response

    async def _key(self, request: web.Request) -> web.Response:
        return web.Response(status=404)

    async def _journal(self, request: web.Request) -> web.Response:
        records = read_batch(await request.read())
        self.records += records
        return web.json_response({"acknowledged": int(request.query["first"]) + len(records)})

    async def _admin(self, request: web.Request) -> web.Response:
        return web.json_response({"path": request.path_qs, "authorization": request.headers.get("authorization")})

    def publish(self, state: State) -> None:
        self._state = state

        async def go() -> None:
            self._publisher.publish(state)

        self._loop.call(go())

    def stop(self) -> None:
        async def go() -> None:
            self._publisher.close()
            await self._runner.cleanup()

        self._loop.call(go())

    def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._loop.call(self._start())

    def settled(self, request_id: str, timeout: float = 10.0) -> Settled:
        return wait_for(lambda: self._find(Settled, request_id), timeout)

    def opened(self, request_id: str, timeout: float = 10.0) -> Opened:
        return wait_for(lambda: self._find(Opened, request_id), timeout)

    def _find(self, kind: type, request_id: str) -> Any:
        found = [r for r in self.records if isinstance(r, kind) and r.request_id == request_id]
        return found[-1] if found else None


def wait_for(probe: Callable[[], T | None], timeout: float = 10.0) -> T:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"nothing within {timeout} s")


@dataclass
class Gateway:
    """`url` of a running gateway process, with the stand-ins around it."""

    url: str
    process: subprocess.Popen[bytes]
    control: ControlStub
    upstream: Upstream
    directory: Path
    command: list[str]

    def restart(self) -> None:
        self.process = start_process(self.command, self.url, self.directory / "gateway.log")

    def log(self) -> str:
        return (self.directory / "gateway.log").read_text()


def start_process(command: list[str], url: str, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as stderr:
        process = subprocess.Popen(command, stderr=stderr, stdout=stderr)
    host, port = url.removeprefix("http://").split(":")

    def up() -> bool:
        if process.poll() is not None:
            raise AssertionError(f"the gateway ended with {process.returncode}:\n{log.read_text()}")
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
            return True
        return False

    wait_for(up)
    return process


def key_record(secret: str, **extra: Any) -> KeyRecord:
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return KeyRecord(f"key_{digest[:8]}", digest, "proj_1", "org_1", **extra)


def state_for(port: int, revision: int = 1, cluster_key: bytes = b"", **changes: Any) -> State:
    limits = LimitsRecord(connect=1.0, first_token=1.5, idle=1.0, total=6.0)
    spoken = changes.pop("protocols", ("openai_chat",))
    upstream = UpstreamRecord("upstream-a", "upstream-a", spoken, f"http://127.0.0.1:{port}/v1", **changes)
    texts = UpstreamRecord("upstream-t", "upstream-t", ("openai_completions",), f"http://127.0.0.1:{port}/v1")
    answers = UpstreamRecord("upstream-r", "upstream-r", ("openai_responses",), f"http://127.0.0.1:{port}/v1")
    sealed = seal(cluster_key, "upstream-m", "upstream-secret") if cluster_key else None
    messages = UpstreamRecord(
        "upstream-m",
        "upstream-m",
        ("anthropic_messages",),
        f"http://127.0.0.1:{port}/v1",
        credentials=() if sealed is None else (CredentialRecord("k1", sealed),),
    )
    ours = UpstreamRecord("replica-2", "local/llama", ("openai_chat",), f"http://127.0.0.1:{port}/v1", local=True)
    refused = UpstreamRecord("upstream-z", "upstream-z", ("openai_chat",), "http://127.0.0.1:9/v1")
    starting = UpstreamRecord(
        "replica-1",
        "local/llama",
        ("openai_chat",),
        "unix:/nowhere.sock",
        local=True,
        state="starting",
        reason="loading",
    )
    price = (PriceRecord({"input": 150_000_000, "cached_input": 75_000_000, "output": 600_000_000}, id="price_1"),)
    models = [
        ModelRecord("assistant", 1, (TargetRecord("upstream-a", "model-1"),), limits, price, default=True),
        ModelRecord("org/with/slashes", 1, (TargetRecord("upstream-a", "model-2"),), limits, (FREE,)),
        ModelRecord("texts", 1, (TargetRecord("upstream-t", "model-t"),), limits, (FREE,)),
        ModelRecord("answers", 1, (TargetRecord("upstream-r", "model-r"),), limits, price),
        ModelRecord("claude", 1, (TargetRecord("upstream-m", "claude-up"),), limits, price),
        ModelRecord("ours", 1, (TargetRecord("replica-2", "ours"),), limits, (FREE,), context_length=4096),
        ModelRecord("down", 1, (TargetRecord("upstream-z", "model-z"),), limits, (FREE,)),
        ModelRecord(
            "rescued", 1, (TargetRecord("upstream-z", "model-z"), TargetRecord("upstream-a", "model-1")), limits, price
        ),
        ModelRecord("warming", 1, (TargetRecord("replica-1", "warming"),), limits, (FREE,)),
        ModelRecord("plain", 1, (TargetRecord("upstream-a", "model-1"),), limits, (FREE,), capabilities=("reasoning",)),
    ]
    keys = [
        key_record(KEY),
        key_record(LIMITED_KEY, models=("texts",)),
        key_record(EXPIRED_KEY, expires_at=1_000_000_000),
    ]
    upstreams = [upstream, texts, answers, messages, ours, refused, starting]
    models = [msgspec.structs.replace(model, policy=ONE_TRY) for model in models]
    return State.of(revision=revision, keys=keys, models=models, upstreams=upstreams)


PROGRAM = ("-m", "tokenworks.gateway")


@contextlib.contextmanager
def running_gateway(
    loop: Loop, *options: str, secret: str = "", program: Sequence[str] = PROGRAM, **changes: Any
) -> Iterator[Gateway]:
    """`secret` is the cluster's, of 64 hex digits, where several gateways share one; `program` what Python runs."""
    with tempfile.TemporaryDirectory(prefix="tw-") as name:
        directory = Path(name)
        (directory / "cluster.key").write_text(secret or secrets.token_hex(32))
        (directory / "cluster.key").chmod(0o600)
        cluster_key = read_cluster_key(directory / "cluster.key")
        upstream = Upstream(loop)
        control = ControlStub(loop, directory, state_for(upstream.port, cluster_key=cluster_key, **changes))
        port = free_port()
        command = [sys.executable, *program, "--control", control.address]
        command += ["--data-dir", f"{directory}/gateway", "--cluster-key-file", f"{directory}/cluster.key"]
        command += ["--port", str(port), *options]
        process = start_process(command, f"http://127.0.0.1:{port}", directory / "gateway.log")
        gateway = Gateway(f"http://127.0.0.1:{port}", process, control, upstream, directory, command)
        try:
            wait_for(lambda: b"degraded" in readyz(gateway.url) or b'"ready"' in readyz(gateway.url))
            yield gateway
        finally:
            gateway.process.terminate()
            try:
                gateway.process.wait(10)
            except subprocess.TimeoutExpired:
                gateway.process.kill()
                gateway.process.wait()
            control.stop()
            upstream.close()
            print(gateway.log()[-4000:])


def publish_and_wait(gateway: Gateway, state: State) -> None:
    """In force when this returns: a model of a new name is listed, and that came in the same frame."""
    marker = f"revision-{secrets.token_hex(4)}"
    known = {name: model for name, model in state.models.items() if not name.startswith("revision-")}
    listed = msgspec.structs.replace(known["assistant"], name=marker, default=False)
    gateway.control.publish(replace(state, models={**known, marker: listed}))
    request = urllib.request.Request(f"{gateway.url}/v1/models", headers={"authorization": f"Bearer {KEY}"})

    def there() -> bool:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return marker.encode() in answer.read()

    wait_for(there)


def readyz(url: str) -> bytes:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 5) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture(scope="module")
def servers() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def gateway_options() -> tuple[str, ...]:
    """More options of the module's gateway."""
    return ()


@pytest.fixture(scope="module")
def shared_gateway(servers: Loop, gateway_options: tuple[str, ...]) -> Iterator[Gateway]:
    options = ("--keep-alive", "0.4", "--header-seconds", "1", "--body-limit", "200000", *gateway_options)
    with running_gateway(servers, *options) as gateway:
        yield gateway


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Gateway:
    """The module's gateway with a fresh, healthy upstream script."""
    shared_gateway.upstream.script = completion
    shared_gateway.upstream.seen.clear()
    return shared_gateway


os.environ.setdefault("PYTHONUNBUFFERED", "1")
