"""A gateway's side of the stream: keep the state current, survive control's absence, ask for unknown keys."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tokenworks.client import Client, ClientError
from tokenworks.core.errors import Unavailable
from tokenworks.snapshot import disk
from tokenworks.snapshot.answers import Answers
from tokenworks.snapshot.framing import FrameError, Reader
from tokenworks.snapshot.records import Delta, Frame, Full, KeyRecord
from tokenworks.snapshot.state import State

SNAPSHOT_PATH = "/internal/v1/snapshot"
KEYS_PATH = "/internal/v1/keys/"
SILENCE_SECONDS = 5.0
BACKOFF_SECONDS = (0.1, 2.0)
SAVE_DELAY_SECONDS = 1.0
ASK_SECONDS = 2.0

log = logging.getLogger(__name__)


class Subscriber:
    """`on_change` is called with each new state, in the event loop, before anybody else sees it."""

    def __init__(
        self, client: Client, path: Path | None = None, *, on_change: Callable[[State], None] | None = None
    ) -> None:
        self.state = State()
        self.connected = False
        self._client = client
        self._path = path
        self._on_change = on_change
        self._answers = Answers(self._ask)
        self._first = asyncio.Event()
        self._dirty = asyncio.Event()
        self._heard: float | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def age(self) -> float:
        """Seconds since control was last heard; infinite when it never was."""
        return float("inf") if self._heard is None else time.monotonic() - self._heard

    def start(self) -> None:
        """Take the copy on disk, then follow control until `stop`."""
        saved = disk.load(self._path) if self._path is not None else None
        if saved is not None:
            log.info("snapshot revision %d loaded from %s", saved.revision, self._path)
            self._become(saved)
        self._tasks.append(asyncio.create_task(self._follow(), name="snapshot-follow"))
        if self._path is not None:
            self._tasks.append(asyncio.create_task(self._save(self._path), name="snapshot-save"))
        for task in self._tasks:
            task.add_done_callback(_report_death)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self.connected = False
        if self._path is not None and self._dirty.is_set():
            self._save_now(self._path)

    async def wait_first(self, timeout: float | None = None) -> None:
        """Until there is a state, from control or from disk. Unavailable after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._first.wait()
        except TimeoutError as error:
            raise Unavailable(
                f"no snapshot: control at {self._client.address} cannot be reached and there is no copy on disk"
            ) from error

    async def lookup_key(self, digest: str) -> KeyRecord | None:
        """The key with this digest; control is asked once about one that the state does not hold.

        Unavailable when control cannot be asked: an unknown key is then neither good nor bad.
        """
        known = self.state.keys.get(digest)
        return known if known is not None else await self._answers.get(digest)

    async def _ask(self, digest: str) -> KeyRecord | None:
        try:
            raw = await self._client.get_bytes(KEYS_PATH + digest, timeout=ASK_SECONDS)
            return msgspec.msgpack.decode(raw, type=KeyRecord)
        except ClientError as error:
            if error.status == 404:
                return None
            log.warning("control cannot be asked about a key: %s", error)
        except msgspec.MsgspecError as error:
            log.warning("control's answer about a key cannot be read: %s", error)
        raise Unavailable("this API key cannot be checked right now; try again", retry_after=1.0)

    async def _follow(self) -> None:
        low, high = BACKOFF_SECONDS
        delay = low
        while True:
            before = self._heard
            reason: object = "control ended the stream"
            try:
                await self._read_stream()
            except (ClientError, FrameError) as error:
                reason = error
            if self._heard != before:
                delay = low
            level = logging.WARNING if self.connected or delay == low else logging.DEBUG
            log.log(level, "snapshot stream from %s lost, trying again: %s", self._client.address, reason)
            self.connected = False
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
            delay = min(2 * delay, high)

    async def _read_stream(self) -> None:
        reader = Reader()
        async with self._client.stream("GET", SNAPSHOT_PATH, idle=SILENCE_SECONDS) as response:
            async for chunk in response.content.iter_any():
                for frame in reader.feed(chunk):
                    self._take(frame)

    def _take(self, frame: Frame) -> None:
        if not self.connected and not isinstance(frame, Full):
            raise FrameError("the snapshot stream did not start with the full state")
        state = self.state.apply(frame)
        self._heard = time.monotonic()
        if isinstance(frame, Full):
            log.info("snapshot revision %d received from %s", state.revision, self._client.address)
            self.connected = True
            self._answers.clear()
        elif isinstance(frame, Delta):
            self._answers.forget(frame.removed_keys)
        if state is not self.state:
            self._become(state)
            self._dirty.set()

    def _become(self, state: State) -> None:
        if self._on_change is not None:
            self._on_change(state)
        self.state = state
        self._first.set()

    async def _save(self, path: Path) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(SAVE_DELAY_SECONDS)
            await asyncio.to_thread(self._save_now, path)

    def _save_now(self, path: Path) -> None:
        self._dirty.clear()
        try:
            disk.save(path, self.state)
        except OSError as error:
            log.warning("snapshot %s cannot be written (%s): a restart will need control", path, error.strerror)


def _report_death(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("%s stopped: this gateway no longer follows control", task.get_name(), exc_info=error)
