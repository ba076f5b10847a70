"""The ASGI application: which path goes where, one rendering of every error, one log line per request."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote

import structlog

from tokenworks.core.errors import CallerError, InternalError, MethodNotAllowed, NotFound, TokenworksError
from tokenworks.gateway.edge import headers
from tokenworks.gateway.edge.exchange import Exchange, Receive, Scope, Send
from tokenworks.gateway.edge.surfaces import alias
from tokenworks.protocols import codec as find_codec
from tokenworks.protocols.base import Codec, OwnStatuses
from tokenworks.telemetry.metrics import Metrics

Handler = Callable[[Exchange], Awaitable[None]]
Answer = Callable[[Exchange, Codec], Awaitable[None]]

log = structlog.get_logger("tokenworks.gateway")

DEFAULT_ERRORS = "openai_chat"
"""The shape of errors on paths that belong to no protocol."""


class Edge:
    """`surfaces` maps a POST path to the protocol served there; `pages` maps (method, path) to a handler;
    `prefixes` maps the beginning of a path to a handler of every method."""

    def __init__(
        self,
        answer: Answer,
        surfaces: Mapping[str, str],
        pages: Mapping[tuple[str, str], Handler],
        prefixes: Mapping[str, Handler],
        metrics: Metrics,
    ) -> None:
        self._answer = answer
        self._surfaces = {path: find_codec(name) for path, name in surfaces.items()}
        self._pages = pages
        self._prefixes = prefixes
        self._metrics = metrics
        self._errors = find_codec(DEFAULT_ERRORS)
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        codec = exchange.codec = self._surface(exchange)
        begun = time.perf_counter()
        self._metrics.in_flight.inc()
        try:
            if codec is not None and exchange.method == "POST":
                await self._answer(exchange, codec)
            else:
                await self._handler(exchange)(exchange)
        except asyncio.CancelledError as left:
            # The connection is gone, or the process is told to end: nobody is left to answer.
            exchange.status = 499
            left.__traceback__ = left.__context__ = None  # it holds frames that hold it
        except TokenworksError as error:
            await self._fail(exchange, error)
        except Exception:
            log.exception("a bug", request_id=exchange.request_id, path=exchange.path)
            message = f"Something broke on our side. Quote request id {exchange.request_id} when you report it."
            await self._fail(exchange, InternalError(message))
        finally:
            exchange.close()
            self._metrics.in_flight.dec()
            self._note(exchange, exchange.codec, time.perf_counter() - begun)

    def _surface(self, exchange: Exchange) -> Codec | None:
        if exchange.path not in self._surfaces and (prefix := alias(exchange.path)):
            exchange.unalias(prefix)
        return self._surfaces.get(exchange.path)

    def _handler(self, exchange: Exchange) -> Handler:
        page = self._pages.get((exchange.method, exchange.path))
        if page is not None:
            return page
        for prefix, handler in self._prefixes.items():
            if exchange.path.startswith(prefix):
                return handler
        if exchange.path in self._surfaces or any(path == exchange.path for _, path in self._pages):
            raise MethodNotAllowed(f"{exchange.method} is not possible on {exchange.path}.")
        raise NotFound(f"There is nothing at {exchange.method} {unquote(exchange.path)}.", code="unknown_path")

    async def _fail(self, exchange: Exchange, error: TokenworksError) -> None:
        codec = exchange.codec or self._errors
        error.request_id = exchange.request_id
        self._metrics.errors.labels(error.code).inc()
        exchange.notes |= {"error": error.code, "provider": error.provider}
        if not isinstance(error, CallerError):
            log.warning("request failed", request_id=exchange.request_id, code=error.code, message=error.message)
        if exchange.started:
            tell = exchange.tell_failure or codec.encode_stream_error
            await exchange.write(tell(error))
            await exchange.finish()
            return
        status = codec.error_status(error) if isinstance(codec, OwnStatuses) else error.status
        await exchange.respond(status, codec.encode_error(error), headers=headers.of_error(exchange, error))

    def _note(self, exchange: Exchange, codec: Codec | None, seconds: float) -> None:
        if codec is None:
            return
        model = exchange.notes.get("metered_model", "unknown")
        self._metrics.requests.labels(model, codec.name, str(exchange.status)).inc()
        self._metrics.duration.labels(model).observe(seconds)
        log.info(
            "request",
            request_id=exchange.request_id,
            path=exchange.path,
            status=exchange.status,
            ms=round(seconds * 1000, 2),
            **exchange.notes,
        )
