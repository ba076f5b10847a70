"""The endpoints under /worker/v1. See docs/worker-protocol.md."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import msgspec

from tokenworks.core.errors import MethodNotAllowed, NotFound, TokenworksError, Unavailable
from tokenworks.protocols.worker import kv
from tokenworks.protocols.worker import types as wire
from tokenworks.protocols.worker.framing import encode
from tokenworks.worker.engines.base import EngineFailed
from tokenworks.worker.engines.generating import Batch, EngineDied, GeneratingEngine
from tokenworks.worker.http import (
    Disconnected,
    Receive,
    Scope,
    Send,
    answer,
    answer_error,
    answer_json,
    read,
    unless_gone,
)
from tokenworks.worker.metrics import CONTENT_TYPE, Metrics
from tokenworks.worker.status import State, Status

PROBE_LIMIT = 30.0
GENERATE = msgspec.json.Decoder(wire.GenerateRequest)
TOKENIZE = msgspec.json.Decoder(wire.TokenizeRequest)
DETOKENIZE = msgspec.json.Decoder(wire.DetokenizeRequest)
SUBSCRIBE = msgspec.json.Decoder(kv.Subscribe)
RENDER = msgspec.json.Decoder(wire.RenderRequest)
log = logging.getLogger(__name__)


class WorkerProtocol:
    """An ASGI application. `drain` begins the worker's end."""

    def __init__(self, engine: GeneratingEngine, status: Status, metrics: Metrics, drain: Callable[[], None]) -> None:
        self._engine = engine
        self._status = status
        self._metrics = metrics
        self._drain = drain
        self._endpoints: dict[str, tuple[str, Callable[[Receive, Send], Awaitable[None]]]] = {
            "generate": ("POST", self._generate),
            "tokenize": ("POST", self._tokenize),
            "detokenize": ("POST", self._detokenize),
            "render": ("POST", self._render),
            "kv_events": ("POST", self._kv_events),
            "health": ("GET", self._health),
            "progress": ("GET", self._progress),
            "metrics": ("GET", self._render_metrics),
            "drain": ("POST", self._begin_drain),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._route(scope, receive, send)
        except TokenworksError as error:
            await answer_error(send, error)
        except Disconnected:
            return

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"].removeprefix(wire.PREFIX + "/")
        try:
            method, endpoint = self._endpoints[name]
        except KeyError:
            raise NotFound(
                f"No such path: {scope['path']}; known under {wire.PREFIX}/: {', '.join(self._endpoints)}."
            ) from None
        if scope["method"] != method:
            raise MethodNotAllowed(f"{scope['path']} takes {method}, not {scope['method']}.")
        await endpoint(receive, send)

    async def _generate(self, receive: Receive, send: Send) -> None:
        request = await read(receive, GENERATE)
        if self._status.state is State.DRAINING:
            raise Unavailable("This worker is draining; another replica answers.", code="draining", retry_after=1.0)
        outcome = "error"
        try:
            outcome = "completed" if await unless_gone(self._stream(request, send), receive) else "cancelled"
        except EngineDied:
            # The response is left without its end on purpose: the caller must see that it was cut.
            log.warning("an answer was cut: the engine ended")
            outcome = "cut"
        finally:
            self._metrics.requests.labels(outcome).inc()

    async def _stream(self, request: wire.GenerateRequest, send: Send) -> None:
        async with aclosing(self._engine.answer(request)) as batches:
            first = await anext(batches)  # an error until here is an answer with its own status
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", wire.FRAMES)]})
            await _send_batch(send, first)
            try:
                async for batch in batches:
                    await _send_batch(send, batch)
            except TokenworksError as error:
                await _send_batch(send, [wire.Error(error.message, error.status, error.code)])
        await send({"type": "http.response.body", "body": b""})

    async def _tokenize(self, receive: Receive, send: Send) -> None:
        request = await read(receive, TOKENIZE)
        ids = self._engine.tokenize(request.text)
        await answer_json(send, 200, wire.TokenizeResponse(ids, [self._engine.detokenize([number]) for number in ids]))

    async def _detokenize(self, receive: Receive, send: Send) -> None:
        request = await read(receive, DETOKENIZE)
        await answer_json(send, 200, wire.DetokenizeResponse(self._engine.detokenize(request.ids)))

    async def _render(self, receive: Receive, send: Send) -> None:
        request = await read(receive, RENDER)
        text = self._engine.render(request.messages, request.tools)
        await answer_json(send, 200, wire.RenderResponse(text, self._engine.tokenize(text)))

    async def _kv_events(self, receive: Receive, send: Send) -> None:
        wanted = await read(receive, SUBSCRIBE)
        events = self._engine.kv_events()
        if events is None:
            raise NotFound("This engine keeps nothing of prompts that it could tell of.", code="no_kv_events")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", wire.FRAMES)]})
        await unless_gone(_tell(events.follow(wanted.epoch, wanted.after), send), receive)

    async def _health(self, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(PROBE_LIMIT):
                await self._engine.probe()
        except (EngineFailed, EngineDied, TimeoutError) as error:
            raise Unavailable(f"The engine does not answer: {error or 'no token in time'}.") from error
        await answer_json(send, 200, {"status": "ok", "model": self._engine.setup.model, "version": wire.VERSION})

    async def _progress(self, receive: Receive, send: Send) -> None:
        """A number that moves with every forward pass, and how many requests are being answered."""
        body = {"progress": await self._engine.progress(), "running": await self._engine.in_flight()}
        await answer_json(send, 200, body)

    async def _render_metrics(self, receive: Receive, send: Send) -> None:
        await answer(send, 200, await self._metrics.render(), CONTENT_TYPE)

    async def _begin_drain(self, receive: Receive, send: Send) -> None:
        self._drain()
        await answer_json(send, 202, {"state": State.DRAINING})


async def _tell(events: AsyncIterator[list[kv.KVEvent]], send: Send) -> None:
    async for batch in events:
        await send({"type": "http.response.body", "body": b"".join(map(encode, batch)), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _send_batch(send: Send, batch: Batch) -> None:
    body = b"".join([event if isinstance(event, bytes) else encode(event) for event in batch])
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})
