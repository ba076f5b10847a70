"""The limit store of one process. Exact by construction: nothing awaits between check and change.

What it costs: a request finds the current window of each bucket by its name and adds to it. Nothing is kept of a
settled request but its id, for a while, so that memory and the garbage collector do not know of the past.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenworks.core.clock import Clock, SystemClock
from tokenworks.core.windows import FOREVER, beginning, epoch_at
from tokenworks.gateway.admission.limits.base import Claim, Decision, Pulse, Reading, Refusal

REMEMBER_SECONDS = 60.0
"""So long at least, and at most twice, the id of a settled request is known: it is not reserved again. Who could ask
for that is a task of this very process."""
ABANDONED_SECONDS = 3600.0
"""How long a hold is known that was neither settled nor renewed in time: then it may still be settled."""
LONGEST_WINDOW = 32 * 86_400
MOST_STALE = 64
"""Ends of holds that are noted in vain, beyond one for each hold."""


@dataclass(slots=True)
class _Window:
    """What one bucket, whose windows are all of one `length`, counts from `begins` until `ends` (Unix seconds); `slack`
    of it may come back."""

    bucket: str
    length: int
    offset: int
    epoch: int
    begins: float = float("-inf")
    ends: float = float("inf")
    used: int = 0
    slack: int = 0


@dataclass(slots=True)
class _Part:
    """What a hold has of one window; `slack` of it may come back, `budget`: its truth comes from the ledger."""

    window: _Window
    amount: int
    slack: int
    budget: bool


@dataclass(slots=True)
class _Hold:
    """`parts` in the order in which they were got: a bucket that was extended has several."""

    expires: float
    parts: list[_Part] = field(default_factory=list)
    leases: list[str] = field(default_factory=list)


class MemoryStore:
    in_process = True

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._begun = self._clock.now_ns() / 1e9 - self._clock.monotonic()
        self._counts: dict[tuple[str, int], _Window] = {}
        self._current: dict[str, _Window] = {}
        """The window that was last asked for, by bucket."""
        self._leases: dict[str, dict[str, _Hold]] = {}
        """By bucket, those that last: who does not renew is taken out before anybody counts."""
        self._holds: dict[str, _Hold] = {}
        """Not settled yet."""
        self._settled: set[str] = set()
        self._settled_before: set[str] = set()
        self._forgotten_at = 0.0
        self._endings: list[tuple[float, str, int]] = []
        """Windows that were charged, by the time after which nobody can ask for them."""
        self._expiring: list[tuple[float, str]] = []
        self._abandoned: deque[tuple[float, str]] = deque()

    async def reserve(self, request_id: str, claims: list[Claim], ttl: float, *, force: bool = False) -> Decision:
        now = self._tidied()
        windows = self._windows(claims, now)
        known = self._holds.get(request_id)
        if known is not None:
            held = [_held(known, claim) for claim in claims]
            return Decision(None, self._readings(claims, windows, held, now))
        if request_id in self._settled or request_id in self._settled_before:
            return Decision(None, self._readings(claims, windows, None, now))
        granted = [claim.amount for claim in claims] if force else self._grant(claims, windows, now)
        if isinstance(granted, Refusal):
            return Decision(granted, self._readings(claims, windows, None, now))
        hold = self._holds[request_id] = _Hold(now + ttl)
        self._note_end(hold, request_id)
        return self._take(hold, request_id, claims, windows, granted, now)

    async def extend(self, request_id: str, claims: list[Claim]) -> Decision:
        now = self._tidied()
        hold = self._holds.get(request_id)
        if hold is None:
            raise KeyError(request_id)
        windows = self._windows(claims, now)
        granted = self._grant(claims, windows, now)
        if isinstance(granted, Refusal):
            return Decision(granted, self._readings(claims, windows, None, now))
        return self._take(hold, request_id, claims, windows, granted, now)

    async def renew(self, gateway_id: str, request_ids: list[str], ttl: float) -> Pulse:
        now = self._tidied()
        for request_id in request_ids:
            hold = self._holds.get(request_id)
            if hold is None:
                continue
            ended, hold.expires = hold.expires <= now, now + ttl
            if ended:
                self._note_end(hold, request_id)
                for bucket in hold.leases:
                    self._leases.setdefault(bucket, {})[request_id] = hold
        return Pulse("", 1)

    async def settle(self, request_id: str, actual: dict[str, int]) -> bool:
        hold = self._holds.pop(request_id, None)
        if hold is None:
            return False
        now = self._now()
        for bucket in hold.leases:
            self._leases[bucket].pop(request_id, None)
        differences = dict.fromkeys([part.window.bucket for part in hold.parts], 0)
        for part in hold.parts:
            differences[part.window.bucket] -= part.amount
        # Refund the newest part first; what exceeds the holds goes to the newest window that still lasts.
        for part in reversed(hold.parts):
            window = part.window
            window.slack -= part.slack
            difference = differences[window.bucket] + actual.get(window.bucket, 0)
            if difference < 0:
                refund = min(part.amount, -difference)
                window.used -= refund
                differences[window.bucket] += refund
            elif difference > 0:
                self._window(window.bucket, window.length, window.offset, now).used += difference
                differences[window.bucket] -= difference
        self._settled.add(request_id)
        return True

    async def read(self, claims: list[Claim]) -> list[Reading]:
        now = self._tidied()
        return self._readings(claims, self._windows(claims, now), None, now)

    async def close(self) -> None:
        """Nothing is kept outside this process."""

    def start_at(self, claim: Claim, used: int) -> None:
        """The current window of a bucket already holds this."""
        self._window(claim.bucket, claim.window, claim.offset, self._now()).used = used

    def _now(self) -> float:
        """Unix seconds of a clock that never jumps."""
        return self._begun + self._clock.monotonic()

    def _moment(self, length: int, now: float) -> float:
        """Calendar windows follow the wall."""
        return now if length >= 0 else self._clock.now_ns() / 1e9

    def _window(self, bucket: str, length: int, offset: int, now: float) -> _Window:
        """The one that is current."""
        moment = self._moment(length, now)
        window = self._current.get(bucket)
        if window is not None and window.begins <= moment < window.ends and window.offset == offset:
            return window
        epoch = epoch_at(moment, length, offset)
        window = self._counts.get((bucket, epoch))
        if window is None:
            window = self._counts[bucket, epoch] = _Window(bucket, length, offset, epoch)
            if length != FOREVER:
                window.begins, window.ends = beginning(epoch, length, offset), beginning(epoch + 1, length, offset)
                known_until = window.ends + (length if length > 0 else LONGEST_WINDOW)
                heapq.heappush(self._endings, (known_until, bucket, epoch))
        elif window.offset != offset:  # its borders were moved, which changes nothing of what it has counted
            window.offset = offset
            window.begins, window.ends = beginning(epoch, length, offset), beginning(epoch + 1, length, offset)
        self._current[bucket] = window
        return window

    def _windows(self, claims: Sequence[Claim], now: float) -> list[_Window | None]:
        """That of each claim, None for leases. What the ledger knows to be spent is in them."""
        windows: list[_Window | None] = []
        for claim in claims:
            if claim.lease:
                windows.append(None)
                continue
            window = self._window(claim.bucket, claim.window, claim.offset, now)
            floor = claim.floor
            if floor is not None and window.used < floor and claim.since == window.epoch:
                window.used = floor
            windows.append(window)
        return windows

    def _grant(self, claims: Sequence[Claim], windows: Sequence[_Window | None], now: float) -> list[int] | Refusal:
        granted = []
        for claim, window in zip(claims, windows, strict=True):
            room = claim.limit - (window.used if window is not None else len(self._leases.get(claim.bucket, ())))
            if claim.amount <= room:
                granted.append(claim.amount)
            elif claim.smallest <= room:
                granted.append(max(claim.smallest, min(claim.middle, room)))
            else:
                pending = window.slack if window is not None else 0
                return Refusal(claim.bucket, claim.limit, claim.limit - room, self._wait(claim, window, now), pending)
        return granted

    def _wait(self, claim: Claim, window: _Window | None, now: float) -> float | None:
        if claim.smallest > claim.limit:
            return None
        if window is None:
            running = sorted(hold.expires for hold in self._leases.get(claim.bucket, {}).values())
            return running[len(running) - claim.limit] - now if running else 0.0
        return self._until_reset(window, now)

    def _until_reset(self, window: _Window, now: float) -> float | None:
        return None if window.length == FOREVER else window.ends - self._moment(window.length, now)

    def _readings(
        self,
        claims: Sequence[Claim],
        windows: Sequence[_Window | None],
        granted: Sequence[int] | None,
        now: float,
    ) -> list[Reading]:
        readings = []
        for at, (claim, window) in enumerate(zip(claims, windows, strict=True)):
            got = 0 if granted is None else granted[at]
            if window is None:
                readings.append(Reading(len(self._leases.get(claim.bucket, ())), None, got))
            else:
                readings.append(Reading(window.used, self._until_reset(window, now), got))
        return readings

    def _take(
        self,
        hold: _Hold,
        request_id: str,
        claims: Sequence[Claim],
        windows: Sequence[_Window | None],
        granted: Sequence[int],
        now: float,
    ) -> Decision:
        for claim, window, amount in zip(claims, windows, granted, strict=True):
            if window is None:
                hold.leases.append(claim.bucket)
                leases = self._leases.setdefault(claim.bucket, {})
                if hold.expires > now:
                    leases[request_id] = hold
                continue
            slack = amount - min(claim.smallest, amount)
            window.used += amount
            window.slack += slack
            hold.parts.append(_Part(window, amount, slack, claim.floor is not None))
        return Decision(None, self._readings(claims, windows, granted, now))

    def _note_end(self, hold: _Hold, request_id: str) -> None:
        if len(self._expiring) > 2 * len(self._holds) + MOST_STALE:  # most of them were settled meanwhile
            self._expiring = [each for each in self._expiring if each[1] in self._holds]
            heapq.heapify(self._expiring)
        heapq.heappush(self._expiring, (hold.expires, request_id))

    def _tidied(self) -> float:
        """Now, when whatever ended until now is taken out."""
        now = self._now()
        while self._endings and self._endings[0][0] <= now:
            _, bucket, epoch = heapq.heappop(self._endings)
            window = self._counts.pop((bucket, epoch), None)
            if window is not None and self._current.get(bucket) is window:
                del self._current[bucket]
        while self._expiring and self._expiring[0][0] <= now:
            self._expire(heapq.heappop(self._expiring)[1], now)
        while self._abandoned and self._abandoned[0][0] <= now:
            request_id = self._abandoned.popleft()[1]
            hold = self._holds.get(request_id)
            if hold is not None and hold.expires <= now:
                del self._holds[request_id]
        if now >= self._forgotten_at:
            self._settled_before, self._settled = self._settled, set()
            self._forgotten_at = now + REMEMBER_SECONDS
        return now

    def _expire(self, request_id: str, now: float) -> None:
        hold = self._holds.get(request_id)
        if hold is None:
            return
        if hold.expires > now:
            heapq.heappush(self._expiring, (hold.expires, request_id))
            return
        for bucket in hold.leases:
            self._leases[bucket].pop(request_id, None)
        for part in hold.parts:
            part.window.slack -= part.slack
            part.slack = 0
            if part.budget:
                part.window.used -= part.amount
                part.amount = 0
        self._abandoned.append((now + ABANDONED_SECONDS, request_id))


def _held(hold: _Hold, claim: Claim) -> int:
    if claim.lease:
        return int(claim.bucket in hold.leases)
    return sum(part.amount for part in hold.parts if part.window.bucket == claim.bucket)
