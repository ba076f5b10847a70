"""What control said about keys that the state does not hold: each asked for once, remembered briefly."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from tokenworks.core.errors import Unavailable
from tokenworks.snapshot.records import KeyRecord

YES_SECONDS = 1.0
NO_SECONDS = 5.0
REMEMBERED = 10_000
ASKED_AT_ONCE = 32

Ask = Callable[[str], Coroutine[Any, Any, KeyRecord | None]]


class Answers:
    """Bounded; the least recently answered goes first. `ask` raises Unavailable when nobody can tell.

    A "yes" is fresh for 1 s only, because a key that is revoked before it was ever published leaves no
    delta; an older one serves while control cannot be asked, as the state itself does.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._known: OrderedDict[str, tuple[float, KeyRecord | None]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[KeyRecord | None]] = {}
        self._room = asyncio.Semaphore(ASKED_AT_ONCE)

    async def get(self, digest: str) -> KeyRecord | None:
        fresh_until, answer = self._known.get(digest, (0.0, None))
        if time.monotonic() < fresh_until:
            return answer
        task = self._asking.get(digest)
        if task is None:
            task = self._asking[digest] = asyncio.create_task(self._find(digest))
            task.add_done_callback(_retrieve)
        try:
            return await asyncio.shield(task)
        except Unavailable:
            _, answer = self._known.get(digest, (0.0, None))
            if answer is None:
                raise
            return answer

    def forget(self, digests: Iterable[str]) -> None:
        """These keys are revoked; also what is being asked about them does not count any more."""
        for digest in digests:
            self._known.pop(digest, None)
            self._asking.pop(digest, None)

    def clear(self) -> None:
        self._known.clear()

    async def _find(self, digest: str) -> KeyRecord | None:
        mine = asyncio.current_task()
        try:
            async with self._room:
                answer = await self._ask(digest)
            if self._asking.get(digest) is not mine:
                return None
            seconds = NO_SECONDS if answer is None else YES_SECONDS
            self._known[digest] = (time.monotonic() + seconds, answer)
            self._known.move_to_end(digest)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
            return answer
        finally:
            if self._asking.get(digest) is mine:
                del self._asking[digest]


def _retrieve(task: "asyncio.Task[KeyRecord | None]") -> None:
    """Every caller may have left before the task failed; asyncio would complain about an unseen exception."""
    if not task.cancelled():
        task.exception()
