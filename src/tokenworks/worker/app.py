"""Composition root of a worker: settings in, a supervised engine with its agent out; drains on SIGTERM."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenworks.client import Client
from tokenworks.models import Entry, WeightsError
from tokenworks.telemetry import logs
from tokenworks.worker import settings as worker_settings
from tokenworks.worker.agent import Agent
from tokenworks.worker.backoff import Backoff
from tokenworks.worker.engines import engine_class
from tokenworks.worker.engines.base import Engine, EngineFailed, OptionError, Setup
from tokenworks.worker.engines.generating import GeneratingEngine
from tokenworks.worker.metrics import Metrics
from tokenworks.worker.protocol.app import WorkerProtocol
from tokenworks.worker.registration import Registration
from tokenworks.worker.server import Server
from tokenworks.worker.settings import Settings
from tokenworks.worker.sockets import AddressInUse, free_port, listen
from tokenworks.worker.status import State, Status
from tokenworks.worker.supervisor import Supervisor
from tokenworks.worker.weights import fetched, find

CANNOT_START = 2
"""Exit code: a setting is wrong, and starting again will not help."""
POLL = 0.05
log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        settings = worker_settings.read(arguments)
        worker = Worker(settings)
    except (OptionError, WeightsError) as error:
        print(f"tokenworks worker: {error}", file=sys.stderr)
        return CANNOT_START
    logs.configure("worker", settings.log_level)
    asyncio.run(worker.run())
    return 0


class Worker:
    def __init__(self, settings: Settings) -> None:
        """OptionError or WeightsError when the settings cannot work."""
        kind = engine_class(settings.engine)
        self._settings = settings
        self._entry = self._find(kind)
        self._listen = settings.listen if settings.listen.socket else free_port(settings.listen)
        options = {**(self._entry.options if self._entry else {}), **settings.options}
        self._more = self._find_more(kind, options)
        ours = issubclass(kind, GeneratingEngine)
        self._engine = kind(
            Setup(
                model=settings.model,
                address=self._listen if ours else settings.engine_listen,
                token=settings.token if settings.listen.socket is None else "",
                secret=settings.token,
                options=options,
                context_length=self._entry.context_length if self._entry else None,
                max_output=self._entry.max_output if self._entry else None,
                capabilities=self._entry.capabilities if self._entry else (),
            )
        )

    async def run(self) -> None:
        """Until SIGTERM or SIGINT and the end of what then still runs."""
        self._status, self._stop, self._hurry = Status(), asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.drain)
        supervisor = Supervisor(self._engine, self._weights, self._status, self._settings.health)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._engine.stop)
            tasks = [asyncio.create_task(self._serve(supervisor))]
            if (control := self._settings.control) is not None:
                client = await stack.enter_async_context(Client(control, token=self._settings.token, timeout=5.0))
                chosen = self._settings
                registration = Registration(client, chosen.id, chosen.model, chosen.engine, chosen.labels)
                stack.push_async_callback(registration.end)
                tasks.append(asyncio.create_task(registration.run(self._engine, self._status)))
            stack.push_async_callback(_cancelled, tasks)
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()  # none of them ends by itself: a bug, not to be hidden
            await self._drained()

    def drain(self) -> None:
        """Take nothing new, finish what runs, then end. A second call ends at once."""
        if self._stop.is_set():
            self._hurry.set()
        self._status.set(State.DRAINING)
        self._stop.set()

    async def _drained(self) -> None:
        begun, limit = time.monotonic(), self._settings.drain_limit
        notice = self._settings.drain_notice if self._settings.control else 0
        while not self._hurry.is_set() and (running := await self._in_flight()) + (time.monotonic() < begun + notice):
            if time.monotonic() > begun + limit:
                log.warning("%d requests still run after %g s and are cut", running, limit)
                return
            await asyncio.sleep(POLL)

    async def _in_flight(self) -> int:
        """A dead engine has nothing running; one too busy to tell has something."""
        try:
            async with asyncio.timeout(1.0):
                return await self._engine.in_flight()
        except EngineFailed:
            return 0
        except TimeoutError:
            return 1

    async def _serve(self, supervisor: Supervisor) -> None:
        """The agent and its engine, until cancelled."""
        metrics = Metrics(self._engine, self._status)
        protocol = None
        if isinstance(self._engine, GeneratingEngine):
            protocol = WorkerProtocol(self._engine, self._status, metrics, self.drain)
        token = self._settings.token if self._listen.socket is None else ""
        app = Agent(self._settings.model, self._status, metrics, protocol, token)
        server = Server(app, await self._bound())
        server.start()
        try:
            await supervisor.run()
        finally:
            # Before anybody else may listen there: afterwards the file could be our successor's.
            if self._listen.socket is not None:
                Path(self._listen.socket).unlink(missing_ok=True)
            await server.stop()

    async def _bound(self) -> socket.socket:
        """An address in use is waited for: it may be our predecessor's."""
        backoff = Backoff()
        while True:
            try:
                return listen(self._listen)
            except AddressInUse as error:
                pause = backoff.next(0)
                self._status.set(State.FAILED, str(error))
                log.error("the agent does not start: %s; next try in %g s", error, pause)
                await asyncio.sleep(pause)

    def _find(self, kind: type[Engine]) -> Entry | None:
        if not kind.needs_weights:
            return None
        settings = self._settings
        return find(settings.weights or settings.model, settings.catalogs, settings.model)

    def _find_more(self, kind: type[Engine], options: Mapping[str, Any]) -> dict[str, Entry]:
        found = {}
        for option in kind.more_weights:
            if (named := options.get(option)) is not None:
                try:
                    found[option] = find(str(named), self._settings.catalogs, option)
                except WeightsError as error:
                    raise OptionError(f"--option {option}: {error}") from error
        return found

    async def _weights(self) -> Path | None:
        if self._entry is None:
            return None
        cache_dir, explain = self._settings.cache_dir, self._status.explain
        for option, named in self._more.items():
            self._engine.hand(option, await fetched(named.files[0], cache_dir, explain))
        entry, *more = self._entry.files
        if more and self._engine.sees:
            self._engine.projector = await fetched(more[0], cache_dir, explain)
        weights = await fetched(entry, cache_dir, explain)
        return await self._engine.prepare(entry, weights, cache_dir, explain)


async def _cancelled(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
