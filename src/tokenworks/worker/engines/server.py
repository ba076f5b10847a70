"""Engines that bring their own HTTP server: a child process that the gateway calls directly."""

import asyncio
import contextlib
import logging
from abc import abstractmethod
from pathlib import Path

from tokenworks.client import Address
from tokenworks.worker.engines.base import Engine, EngineFailed, Setup
from tokenworks.worker.engines.process import Child
from tokenworks.worker.sockets import AddressInUse, clear, free_port

POLL = 0.05
log = logging.getLogger(__name__)


class ServerEngine(Engine):
    """A subclass says how to start the server and how to talk to it. `address` has a port once it is started."""

    start_limit = 600.0
    """Seconds until the first token: big weights load slowly."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.address = setup.address
        self._child: Child | None = None

    @abstractmethod
    def command(self, weights: Path | None) -> list[str]:
        """EngineFailed when these weights cannot be served."""

    def told(self) -> bytes:
        """What the child reads from its standard input: nothing secret belongs on a command line."""
        return b""

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    async def start(self, weights: Path | None) -> None:
        try:
            self.address = self._place()
            self._child = await Child.start(self.command(weights), self._hear, told=self.told())
        except (OSError, AddressInUse) as error:
            raise EngineFailed(str(error)) from error
        ended = asyncio.create_task(self._child.ended())
        answering = asyncio.create_task(self._until_it_answers())
        try:
            await asyncio.wait({ended, answering}, timeout=self.start_limit, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise EngineFailed(ended.result())
            if not answering.done():
                raise EngineFailed(f"no token within {self.start_limit:g} s of its start")
            answering.result()
        finally:
            for task in (ended, answering):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, EngineFailed):
                    await task

    async def died(self) -> str:
        return await self._child.ended() if self._child else "not started"

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop()
            self._child = None

    async def _until_it_answers(self) -> None:
        """A refused connection means not yet; the child's end is someone else's to notice.

        Callers may be there before us: our probe then waits behind them, and their first token is as good a proof.
        """
        while True:
            probe = asyncio.create_task(self.probe())
            try:
                while not probe.done() and not await self.progress():
                    await asyncio.wait({probe}, timeout=POLL)
                if probe.done():
                    probe.result()
                return
            except EngineFailed as error:
                log.debug("not yet: %s", error)
                await asyncio.sleep(POLL)
            finally:
                probe.cancel()
                await asyncio.gather(probe, return_exceptions=True)

    def _place(self) -> Address:
        """The address to bind now: no stale socket in the way, and a port of its own for TCP."""
        if self.setup.address.socket is not None:
            clear(Path(self.setup.address.socket))
            return self.setup.address
        return free_port(self.setup.address)

    def _hear(self, line: str) -> None:
        log.info("%s: %s", self.setup.model, line)
