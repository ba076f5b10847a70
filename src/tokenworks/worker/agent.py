"""The agent's own endpoints: /health and /metrics for every kind of engine, and the worker protocol for ours."""

import hmac

from tokenworks.core.errors import MethodNotAllowed, NotFound, Unauthenticated
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.http import App, Receive, Scope, Send, answer, answer_error, answer_json
from tokenworks.worker.metrics import CONTENT_TYPE, Metrics
from tokenworks.worker.status import Status


class Agent:
    """An ASGI application. With a `token`, everything but /health demands it."""

    def __init__(self, model: str, status: Status, metrics: Metrics, protocol: App | None, token: str) -> None:
        self._model = model
        self._status = status
        self._metrics = metrics
        self._protocol = protocol
        self._expected = f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"only HTTP is served, not {scope['type']}")
        path = scope["path"]
        if path == "/health":
            await self._health(send)
        elif not self._permitted(scope):
            await answer_error(send, Unauthenticated("This worker wants the cluster's internal token."))
        elif self._protocol is not None and path.startswith(wire.PREFIX + "/"):
            await self._protocol(scope, receive, send)
        elif path != "/metrics":
            await answer_error(send, NotFound(f"No such path: {path}."))
        elif scope["method"] != "GET":
            await answer_error(send, MethodNotAllowed(f"{path} takes GET, not {scope['method']}."))
        else:
            await answer(send, 200, await self._metrics.render(), CONTENT_TYPE)

    async def _health(self, send: Send) -> None:
        """What the latest probe found: see supervisor.py."""
        body = {"state": self._status.state, "reason": self._status.reason, "model": self._model}
        await answer_json(send, 200 if self._status.ready else 503, body)

    def _permitted(self, scope: Scope) -> bool:
        if not self._expected:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._expected)
