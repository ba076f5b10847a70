"""Requests that run on when their caller has left: in the background, or as predictions.

What comes is kept here for those who read along, and saved to control every second and at each change of status. The
first ending stands: when a save's reply says that somebody else ended it, the run stops.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import msgspec
import structlog

from tokenworks.answers.records import SAVE_SECONDS, Save, pack
from tokenworks.core.errors import InternalError, TokenworksError, Unavailable
from tokenworks.gateway.answers.keeping import events_of
from tokenworks.gateway.answers.store import AnswerStore
from tokenworks.gateway.batches.collect import CollectingExchange
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.journal.records import Settled
from tokenworks.protocols.sse import Splitter, data_of

LAST_SAVE_PAUSE = 1.0
LAST_SAVES = 600
"""How often the end of a run is tried to be saved: control may be away for minutes."""
STOP_SECONDS = 5.0
CANCEL_SECONDS = 3.0

log = structlog.get_logger("tokenworks.gateway")

Work = Callable[[Exchange], Awaitable[Settled]]


class Subject(Protocol):
    """What runs, as its caller sees it. Methods that end it return the events that tell so to those who read along."""

    id: str

    @property
    def status(self) -> str: ...

    @property
    def stream(self) -> bool: ...

    def body(self) -> bytes: ...

    def begin(self) -> None: ...

    def see(self, block: bytes) -> None:
        """An event of its stream."""
        ...

    def succeed(self, whole: bytes, settled: Settled) -> None:
        """`whole` is its answer when that was no stream."""
        ...

    def fail(self, error: TokenworksError, told: bool) -> bytes:
        """`told`: its stream has said so itself."""
        ...

    def cancel(self) -> bytes: ...

    def progress(self, blocks: list[bytes]) -> tuple[str, ...]:
        """What is new in these events, as webhooks name it."""
        ...


class _Collecting(CollectingExchange):
    """Tells `see` of each piece of a stream; a whole answer stays in `body`."""

    def __init__(self, asked: Exchange, see: Callable[[bytes], None] | None) -> None:
        super().__init__(asked.path, asked.request_id)
        self.headers = asked.headers
        self.codec = asked.codec
        self._see = see

    async def _collect(self, message: dict[str, Any]) -> None:
        if self._see is None:
            await super()._collect(message)
        elif message["type"] == "http.response.body":
            self._see(message["body"])


class Run:
    """`blocks` are the events so far; `done` is set once it has ended and that is saved, or given up."""

    def __init__(self, subject: Subject, project_id: str, asked: Exchange, store: AnswerStore, first: Save) -> None:
        self.subject = subject
        self.project_id = project_id
        self.blocks: list[bytes] = []
        self.ended = asyncio.Event()
        self.done = asyncio.Event()
        self.exchange = _Collecting(asked, self._see if subject.stream else None)
        self._store = store
        self.first = first
        self._saved = 0
        self._status = subject.status
        self._news = asyncio.Event()
        self._hurry = asyncio.Event()
        self._splitter = Splitter()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self, work: Work) -> "asyncio.Task[None]":
        self._task = asyncio.create_task(self._live(work), name=f"run-{self.subject.id}")
        return self._task

    def cancel(self) -> None:
        if self._task is not None and not self.ended.is_set():
            self._task.cancel()

    async def cancelled(self) -> None:
        """Cancel it, and wait until that is saved with all that came before: control alone knows less."""
        self.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await self.done.wait()

    def stop(self) -> None:
        """The gateway ends: what has not ended has failed."""
        self._stopping = True
        self.cancel()

    async def follow(self) -> AsyncIterator[bytes]:
        """The events, as they come, until it has ended."""
        number = 0
        while True:
            news = self._news
            while number < len(self.blocks):
                yield self.blocks[number]
                number += 1
            if self.ended.is_set():
                return
            await news.wait()

    async def _live(self, work: Work) -> None:
        reporting = asyncio.create_task(self._report())
        self.subject.begin()
        self._hurry.set()
        try:
            settled = await work(self.exchange)
            self.subject.succeed(bytes(self.exchange.body).strip(), settled)
        except asyncio.CancelledError:
            if self._stopping:
                self._fail(Unavailable("The service was stopped while it ran this; please try again."))
            else:
                self._add(self.subject.cancel())
        except TokenworksError as error:
            self._fail(error)
        except Exception:  # a bug is this run's failure; it has no caller who could be told otherwise
            log.exception("a bug", request_id=self.exchange.request_id)
            self._fail(InternalError(f"Something broke on our side. Request id {self.exchange.request_id}."))
        finally:
            self.exchange.close()
            self.ended.set()
            self._tell()
        reporting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reporting
        await self._save_end()
        self.done.set()
        seconds = self.exchange.age()
        log.info(
            "run", id=self.subject.id, status=self.subject.status, ms=round(seconds * 1000, 2), **self.exchange.notes
        )

    def _see(self, chunk: bytes) -> None:
        for block in self._splitter.feed(chunk):
            if data_of(block) is not None:
                self._append(block)
        self._tell()

    def _append(self, block: bytes) -> None:
        self.blocks.append(block)
        self.subject.see(block)
        if self.subject.status != self._status:
            self._status = self.subject.status
            self._hurry.set()

    def _add(self, data: bytes) -> None:
        self.blocks += events_of(data)

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _fail(self, error: TokenworksError) -> None:
        tell = self.exchange.tell_failure
        told = self.subject.stream and self.exchange.started and tell is not None
        if told and tell is not None:
            self._see(tell(error))
        self._add(self.subject.fail(error, told))

    async def _report(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAVE_SECONDS):
                    await self._hurry.wait()
            self._hurry.clear()
            # Not interrupted: a save that was cut off would leave open what control has.
            saving = asyncio.create_task(self._save_now(ended=False))
            try:
                await asyncio.shield(saving)
            except asyncio.CancelledError:
                await saving
                raise

    async def _save_now(self, *, ended: bool) -> bool:
        """Whether control has it."""
        new = self.blocks[self._saved :]
        save = msgspec.structs.replace(
            self.first,
            status=self.subject.status,
            body=self.subject.body(),
            create=False,
            ended=ended,
            input=b"[]",
            webhook=None,
            events=pack(self._saved, new) if new else None,
            progress=self.subject.progress(new),
        )
        try:
            saved = await self._store.save(self.subject.id, save, tries=1)
        except TokenworksError as error:
            log.warning("a run is not saved", id=self.subject.id, code=error.code, message=error.message)
            return False
        self._saved += len(new)
        if saved.ended and not ended:
            self.cancel()
        return True

    async def _save_end(self) -> None:
        for _ in range(LAST_SAVES):
            if await self._save_now(ended=True):
                return
            if self._stopping:
                break
            await asyncio.sleep(LAST_SAVE_PAUSE)
        log.error("the end of a run is lost: control was away too long", id=self.subject.id)


class Runs:
    """Everything that runs in this gateway, by id."""

    def __init__(self, store: AnswerStore) -> None:
        self._store = store
        self._runs: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, subject: Subject, first: Save, asked: Exchange, work: Work) -> Run:
        """Returns once control knows it. Unavailable when that cannot be. `asked` is how it was asked for."""
        await self._store.save(subject.id, first)
        run = Run(subject, first.project_id, asked, self._store, first)
        self._runs[subject.id] = run
        task = run.start(work)
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._forget(ended, subject.id))
        return run

    def find(self, project_id: str, id: str) -> Run | None:
        run = self._runs.get(id)
        return run if run is not None and run.project_id == project_id else None

    async def stop(self, patience: float) -> None:
        """What runs has so many seconds to end."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for run in self._runs.values():
            run.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)

    def _forget(self, task: "asyncio.Task[None]", id: str) -> None:
        self._tasks.discard(task)
        del self._runs[id]
