"""The worker protocol of an engine of ours that runs in a process of its own, below the worker's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tokenworks.client import Address
from tokenworks.worker.agent import Agent
from tokenworks.worker.engines.generating import GeneratingEngine
from tokenworks.worker.metrics import Metrics
from tokenworks.worker.protocol.app import WorkerProtocol
from tokenworks.worker.server import Server
from tokenworks.worker.sockets import listen
from tokenworks.worker.status import State, Status


@asynccontextmanager
async def serving(engine: GeneratingEngine, address: Address, token: str) -> AsyncIterator[None]:
    """Answers at `address` for a running engine. Draining is the worker's business. AddressInUse."""
    status = Status()
    status.set(State.READY)
    metrics = Metrics(engine, status)
    protocol = WorkerProtocol(engine, status, metrics, lambda: status.set(State.DRAINING))
    server = Server(Agent(engine.setup.model, status, metrics, protocol, token), listen(address))
    server.start()
    try:
        yield
    finally:
        if (events := engine.kv_events()) is not None:
            events.close()  # its listeners never leave by themselves
        await server.stop()
