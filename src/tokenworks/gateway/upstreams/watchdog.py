"""Bounds the wait for an upstream without touching the hot path: one timer per attempt looks at two marks.

Silence is measured in output, not in bytes: comments and pings from an upstream do not count as progress.
"""

import asyncio
from collections.abc import Callable

from tokenworks.core.errors import Fault, UpstreamTimeout
from tokenworks.core.target import RouteLimits

TICK_SECONDS = 1.0


class Watchdog:
    """Use as `with`, also several times; call `progress` at each piece of output. On expiry the task that entered it is
    interrupted and leaves the block with UpstreamTimeout. `on_tick` is called about every second.

    An answer that is not streamed shows nothing before it is whole: only the total limit applies to it, and `whole`
    seconds where somebody else could answer instead. The total counts from `since` on the loop's clock: the route's
    begin, when this is not its first attempt.
    """

    def __init__(
        self,
        limits: RouteLimits,
        provider: str,
        on_tick: Callable[[], None],
        *,
        stream: bool,
        since: float | None = None,
        whole: float | None = None,
    ) -> None:
        self._limits = limits
        self._stream = stream
        self._whole = whole
        self._provider = provider
        self._on_tick = on_tick
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = None
        self._last = self._loop.time()
        self._begun = self._last if since is None else since
        self._outputs = 0
        self.delivering = False
        """True while the caller is slow to take what came: the upstream is not to blame for that."""
        self._timer: asyncio.TimerHandle | None = None
        self._expired: UpstreamTimeout | None = None

    def progress(self) -> None:
        self._outputs += 1
        self._last = self._loop.time()

    def delivered(self) -> None:
        """The caller has taken everything: the upstream's silence counts from now."""
        self.delivering = False
        self._last = self._loop.time()

    def __enter__(self) -> "Watchdog":
        self._task = asyncio.current_task()
        self._arm()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._expired is not None and kind is asyncio.CancelledError and self._task is not None:
            self._task.uncancel()
            raise self._expired from None

    def _arm(self) -> None:
        wait = min(deadline for deadline, _, _ in self._deadlines()) - self._loop.time()
        self._timer = self._loop.call_later(max(min(wait, TICK_SECONDS), 0), self._check)

    def _deadlines(self) -> list[tuple[float, str, float]]:
        limits = self._limits
        total = (self._begun + limits.total, "total", limits.total)
        if self.delivering:
            return [total]
        if not self._stream:
            return [total] if self._whole is None else [(self._last + self._whole, "whole", self._whole), total]
        name, seconds = ("idle", limits.idle) if self._outputs else ("first_token", limits.first_token)
        return [(self._last + seconds, name, seconds), total]

    def _check(self) -> None:
        now = self._loop.time()
        for deadline, name, seconds in self._deadlines():
            if now >= deadline:
                self._expire(name, seconds)
                return
        self._on_tick()
        self._arm()

    def _expire(self, name: str, seconds: float) -> None:
        what = {
            "first_token": f"gave no output within {seconds:g} s",
            "idle": f"was silent for {seconds:g} s in the middle of its answer",
            "whole": f"gave no answer within {seconds:g} s",
            "total": f"did not finish within {seconds:g} s",
        }[name]
        fault = Fault.SLOW if name == "total" else Fault.SILENT
        self._expired = UpstreamTimeout(
            f"{self._provider} {what}.", provider=self._provider, code=f"{name}_timeout", fault=fault
        )
        if self._task is not None:
            self._task.cancel()
