"""Bring the journal to control: batches in order, again until acknowledged, forgotten only then."""

import asyncio
import contextlib
import json
import logging
import random

from tokenworks.client import Client, ClientError
from tokenworks.journal.framing import FrameError
from tokenworks.journal.reader import Batch
from tokenworks.journal.writer import Journal

JOURNAL_PATH = "/internal/v1/journal/"
LINGER_SECONDS = 0.1
BACKOFF_SECONDS = (0.1, 2.0)
POST_SECONDS = 10.0

log = logging.getLogger(__name__)


class Shipper:
    """`connected` tells whether control took the last batch."""

    def __init__(self, journal: Journal, client: Client) -> None:
        self.connected = False
        self._journal = journal
        self._client = client
        self._hurry = asyncio.Event()
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="journal-ship")
        self._task.add_done_callback(_report_death)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def drain(self, timeout: float) -> bool:
        """Ship without lingering until control has everything; False when `timeout` seconds were not enough."""
        goal = self._journal.end
        self._hurry.set()
        self._journal.flush()
        try:
            async with asyncio.timeout(timeout):
                while self._journal.acknowledged < goal:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        finally:
            self._hurry.clear()
        return True

    async def _run(self) -> None:
        low, high = BACKOFF_SECONDS
        delay = low
        while True:
            reason = await self._ship_next()
            if not reason:
                delay = low
                continue
            log.log(logging.WARNING if delay == low else logging.DEBUG, "the journal waits for control: %s", reason)
            self.connected = False
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
            delay = min(2 * delay, high)

    async def _ship_next(self) -> str:
        """Wait for records, ship one batch; returns why control did not take it, "" when it did."""
        try:
            batch = await self._next_batch()
            wanted = await self._post(batch)
        except (ClientError, FrameError) as error:
            return str(error)
        self._move(batch, wanted)
        self._moved.set()
        return "" if wanted > batch.first else f"it wants record {wanted} after a batch from {batch.first}"

    async def _next_batch(self) -> Batch:
        """Records that came since the last look; an idle journal lets some gather first, unless there is a hurry."""
        while True:
            self._journal.news.clear()
            batch = self._journal.read()
            if batch is not None:
                return batch
            await self._journal.news.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._hurry.wait()

    async def _post(self, batch: Batch) -> int:
        params = {"first": str(batch.first)}
        if batch.first == self._journal.oldest:
            params["oldest"] = "1"
        path = JOURNAL_PATH + self._journal.gateway_id
        raw = await self._client.post_bytes(path, batch.data, params=params, timeout=POST_SECONDS)
        try:
            wanted = json.loads(raw)["acknowledged"]
        except (ValueError, KeyError, TypeError) as error:
            raise ClientError(502, f"control answered {raw[:80]!r} to a batch") from error
        if not isinstance(wanted, int) or wanted < 0:
            raise ClientError(502, f"control acknowledged {wanted!r}, which is no record number")
        return wanted

    def _move(self, batch: Batch, wanted: int) -> None:
        journal = self._journal
        if wanted == batch.end:
            self.connected = True
        elif wanted > journal.synced:
            log.error(
                "control wants record %d of %s, this journal ends at %d: was its directory restored from a copy? "
                "Sending all it holds again under a new id",
                wanted, journal.gateway_id, journal.synced,
            )  # fmt: skip
            journal.rename()
            return
        elif wanted < batch.first:
            log.warning("control wants record %d again, going back from %d", wanted, batch.first)
        journal.acknowledge(wanted)


def _report_death(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("journal shipping stopped: usage no longer reaches control", exc_info=error)
