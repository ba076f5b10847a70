"""The agent's metrics, in Prometheus' format, with the engine's own after them."""

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from tokenworks.worker.engines.base import Engine, EngineFailed
from tokenworks.worker.engines.generating import GeneratingEngine
from tokenworks.worker.status import State, Status

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
ENGINE_LIMIT = 2.0
"""Seconds that the engine may take for its part; a hung one must not take ours away."""


def _is_in(status: Status, state: State) -> Callable[[], float]:
    return lambda: float(status.state is state)


class Metrics:
    def __init__(self, engine: Engine, status: Status) -> None:
        self._engine = engine
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "tokenworks_worker_requests", "Calls of the worker protocol, by outcome", ["outcome"], registry=registry
        )
        state = Gauge("tokenworks_worker_state", "1 for the state it is in", ["state"], registry=registry)
        for each in State:
            state.labels(each.value).set_function(_is_in(status, each))
        restarts = Gauge("tokenworks_worker_restarts", "Ends of the engine and failed starts", registry=registry)
        restarts.set_function(lambda: float(status.restarts))
        if isinstance(engine, GeneratingEngine):
            running = Gauge("tokenworks_worker_in_flight_requests", "Requests being answered", registry=registry)
            running.set_function(lambda: float(engine.running))
            generated = Gauge("tokenworks_worker_generated_tokens", "Tokens since the start", registry=registry)
            generated.set_function(lambda: float(engine.generated))

    async def render(self) -> bytes:
        try:
            async with asyncio.timeout(ENGINE_LIMIT):
                own = await self._engine.metrics()
        except (EngineFailed, TimeoutError):
            own = ""
        return generate_latest(self.registry) + own.encode()
