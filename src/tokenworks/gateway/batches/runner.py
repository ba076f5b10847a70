"""Leases lines from control, runs them, hands results back. One loop, one call at a time, at the lowest priority.

All that it knows is in memory: after a kill, control frees what this gateway does not name any more.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Mapping

import msgspec

from tokenworks.batches.records import (
    LARGEST_RESULT,
    LEASE_PATH,
    LeaseAnswer,
    LeaseCall,
    LineId,
    LineRecord,
    ResultRecord,
    ReturnedRecord,
)
from tokenworks.client import Client, ClientError
from tokenworks.gateway.admission.keys import Keys
from tokenworks.gateway.batches.line import Serve, run
from tokenworks.gateway.pipeline import Pipeline
from tokenworks.journal.writer import Journal
from tokenworks.protocols.base import Codec

IDLE_SECONDS = 1.0
"""Between two calls, while nothing ends: much less than a lease lasts."""
STOP_SECONDS = 5.0
LEASED_AHEAD = 4
"""Lines leased for each that may run, so that none waits for a call to control."""
_ANSWER = msgspec.msgpack.Decoder(LeaseAnswer)
_ENCODE = msgspec.msgpack.Encoder().encode

log = logging.getLogger(__name__)


class BatchRunner:
    """`surfaces`: by endpoint, the protocol and what answers it. `limit`: so many requests, of callers and of batches
    together, leave no room for one more line of a batch."""

    def __init__(
        self,
        client: Client,
        journal: Journal,
        keys: Keys,
        pipeline: Pipeline,
        surfaces: Mapping[str, tuple[Codec, Serve]],
        limit: int,
    ) -> None:
        self._client = client
        self._journal = journal
        self._keys = keys
        self._pipeline = pipeline
        self._surfaces = surfaces
        self._limit = limit
        self._waiting: deque[LineRecord] = deque()
        self._running: dict[LineId, asyncio.Task[None]] = {}
        self._results: dict[LineId, ResultRecord] = {}
        self._returned: dict[LineId, ReturnedRecord] = {}
        self._news = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._limit > 0:
            self._task = asyncio.create_task(self._loop(), name="batches")

    def drain(self) -> None:
        """Start no more lines."""
        self._stopping = True
        self._waiting.clear()

    async def stop(self) -> None:
        """What runs may end, for a moment; what does not is run again elsewhere."""
        self.drain()
        if self._task is None:
            return
        if self._running:
            await asyncio.wait(self._running.values(), timeout=STOP_SECONDS)
        for task in [*self._running.values(), self._task]:
            task.cancel()
        await asyncio.gather(*self._running.values(), self._task, return_exceptions=True)
        with contextlib.suppress(ClientError):
            await self._call(0)

    @property
    def _room(self) -> int:
        """How many more may start now."""
        return 0 if self._stopping else self._limit - self._pipeline.interactive - len(self._running)

    async def _loop(self) -> None:
        while True:
            self._news.clear()
            self._start_waiting()
            if self._room <= 0 and not self._running:
                self._waiting.clear()  # others may have room
            idle = not self._waiting and (self._room > 0 or self._running)
            pause = IDLE_SECONDS
            try:
                leased = await self._call(self._limit * LEASED_AHEAD if idle else 0)
            except (ClientError, msgspec.MsgspecError) as error:
                log.warning("control gives no lines of batches: %s", error)
            else:
                self._waiting += leased
                self._start_waiting()
                pause = 0.0 if leased and self._room > 0 else IDLE_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()

    async def _call(self, wanted: int) -> list[LineRecord]:
        """Everything that ended since the last call, and the wish for more. ClientError: it is all said again."""
        results = _fitting(self._results)
        returned = dict(self._returned)
        holding = {*(line.id for line in self._waiting), *self._running, *self._results}
        call = LeaseCall(
            self._journal.gateway_id, wanted, tuple(sorted(holding)), tuple(results.values()), tuple(returned.values())
        )
        raw = await self._client.post_bytes(LEASE_PATH, _ENCODE(call))
        for line_id, result in results.items():
            if self._results.get(line_id) is result:
                del self._results[line_id]
        for line_id in returned:
            del self._returned[line_id]
        lines = _ANSWER.decode(raw).lines
        for line in lines:
            if line.endpoint not in self._surfaces:  # another version knows it
                self._returned[line.id] = ReturnedRecord(*line.id)
        return [line for line in lines if line.endpoint in self._surfaces]

    def _start_waiting(self) -> None:
        while self._waiting and self._room > 0:
            line = self._waiting.popleft()
            self._running[line.id] = asyncio.create_task(self._run(line), name=f"{line.batch} {line.number}")

    async def _run(self, line: LineRecord) -> None:
        try:
            codec, serve = self._surfaces[line.endpoint]
            outcome = await run(line, self._keys, codec, serve)
        finally:
            del self._running[line.id]
        if isinstance(outcome, ResultRecord):
            self._results[line.id] = outcome
        else:
            self._returned[line.id] = outcome
        self._start_waiting()
        self._news.set()


def _fitting(results: Mapping[LineId, ResultRecord]) -> dict[LineId, ResultRecord]:
    """As many as one call carries."""
    chosen: dict[LineId, ResultRecord] = {}
    size = 0
    for line_id, result in results.items():
        size += len(result.body)
        if chosen and size > LARGEST_RESULT:
            break
        chosen[line_id] = result
    return chosen
