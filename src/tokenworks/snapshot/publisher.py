"""Control's side of the stream, without a transport: hold the state, tell every subscriber what changed."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

from tokenworks.snapshot.framing import encode
from tokenworks.snapshot.records import Beat
from tokenworks.snapshot.state import State, diff, is_empty

BEAT_SECONDS = 1.0
QUEUE_FRAMES = 256


class _Subscriber:
    """Deltas not yet sent, or None: it fell behind (or is new) and gets the full state next."""

    def __init__(self) -> None:
        self.pending: deque[bytes] | None = None
        self.wake = asyncio.Event()
        self.wake.set()


class Publisher:
    def __init__(self, state: State | None = None, *, beat: float = BEAT_SECONDS, queue: int = QUEUE_FRAMES) -> None:
        self._state = state or State()
        self._beat = beat
        self._queue = queue
        self._subscribers: set[_Subscriber] = set()
        self._full: tuple[int, bytes] | None = None
        self._closed = False

    @property
    def state(self) -> State:
        return self._state

    @property
    def subscribers(self) -> int:
        return len(self._subscribers)

    def publish(self, state: State) -> int:
        """Make `state` the current one; returns its revision.

        A state that says the same as the current one changes nothing. Revisions are numbered here: the
        next one, or the state's own where that is higher.
        """
        revision = max(self._state.revision + 1, state.revision)
        new = replace(state, revision=revision)
        delta = diff(self._state, new)
        if is_empty(delta):
            return self._state.revision
        self._state = new
        frame = encode(delta)
        for subscriber in self._subscribers:
            if subscriber.pending is not None:
                if len(subscriber.pending) < self._queue:
                    subscriber.pending.append(frame)
                else:
                    subscriber.pending = None
            subscriber.wake.set()
        return revision

    def close(self) -> None:
        """End every subscription, so that the server can shut down."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.wake.set()

    async def subscribe(self) -> AsyncIterator[bytes]:
        """Encoded frames: the full state, then each change, and a beat for every second of silence."""
        subscriber = _Subscriber()
        self._subscribers.add(subscriber)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._beat):
                        await subscriber.wake.wait()
                if self._closed:
                    return
                subscriber.wake.clear()
                for frame in self._take(subscriber):
                    yield frame
        finally:
            self._subscribers.discard(subscriber)

    def _take(self, subscriber: _Subscriber) -> list[bytes]:
        pending, subscriber.pending = subscriber.pending, deque()
        if pending is None:
            return [self._full_frame()]
        return list(pending) or [encode(Beat(self._state.revision))]

    def _full_frame(self) -> bytes:
        if self._full is None or self._full[0] != self._state.revision:
            self._full = (self._state.revision, encode(self._state.full()))
        return self._full[1]
