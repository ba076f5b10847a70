"""The limit store of one process. Exact by construction: nothing awaits between check and change."""

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from tokenworks.core.clock import Clock, SystemClock
from tokenworks.gateway.admission.limits.base import FOREVER, Claim, Reading, Refusal

REMEMBER_SECONDS = 3600.0
"""How long a settled request is known, so that settling twice changes nothing."""


@dataclass(slots=True)
class _Held:
    window: int
    offset: int
    epoch: int
    amount: int


@dataclass(slots=True)
class _Hold:
    """`parts` by bucket: a bucket that was extended in a later window has one part for each window."""

    expires: float
    parts: dict[str, list[_Held]] = field(default_factory=dict)
    leases: list[str] = field(default_factory=list)
    settled: bool = False


class MemoryStore:
    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._counts: dict[tuple[str, int], int] = {}
        self._leases: dict[str, dict[str, float]] = {}
        self._holds: dict[str, _Hold] = {}
        self._endings: list[tuple[float, str, int]] = []
        """Windows that were charged, by the time after which nobody can ask for them."""
        self._forgettable: list[tuple[float, str]] = []

    async def reserve(self, request_id: str, claims: list[Claim], ttl: float) -> Refusal | None:
        now = self._now()
        self._forget(now)
        if request_id in self._holds:
            return None
        if refusal := self._first_refusal(claims, now):
            return refusal
        hold = self._holds[request_id] = _Hold(now + ttl)
        self._take(hold, request_id, claims, now)
        return None

    async def extend(self, request_id: str, claims: list[Claim]) -> Refusal | None:
        now = self._now()
        hold = self._holds.get(request_id)
        if hold is None or hold.settled:
            raise KeyError(request_id)
        if refusal := self._first_refusal(claims, now):
            return refusal
        self._take(hold, request_id, claims, now)
        return None

    async def renew(self, request_ids: list[str], ttl: float) -> None:
        now = self._now()
        for request_id in request_ids:
            hold = self._holds.get(request_id)
            if hold is None or hold.settled:
                continue
            hold.expires = now + ttl
            for bucket in hold.leases:
                self._leases.setdefault(bucket, {})[request_id] = hold.expires

    async def settle(self, request_id: str, actual: dict[str, int]) -> bool:
        now = self._now()
        hold = self._holds.get(request_id)
        if hold is None or hold.settled:
            return False
        hold.settled = True
        for bucket in hold.leases:
            self._leases.get(bucket, {}).pop(request_id, None)
        for bucket, parts in hold.parts.items():
            self._replace(bucket, parts, actual.get(bucket, 0), now)
        heapq.heappush(self._forgettable, (now + REMEMBER_SECONDS, request_id))
        return True

    async def read(self, claims: list[Claim]) -> list[Reading]:
        now = self._now()
        return [Reading(self._used(claim, now), _until_reset(claim, now)) for claim in claims]

    def load(self, bucket: str, window: int, offset: int, used: int) -> None:
        """Set the current window of a bucket, when budgets are rebuilt from the ledger."""
        self._counts[bucket, _epoch(self._now(), window, offset)] = used

    def _now(self) -> float:
        return self._clock.now_ns() / 1e9

    def _first_refusal(self, claims: Iterable[Claim], now: float) -> Refusal | None:
        for claim in claims:
            used = self._used(claim, now)
            if used + claim.amount > claim.limit:
                return Refusal(claim.bucket, claim.limit, used, self._wait(claim, now))
        return None

    def _wait(self, claim: Claim, now: float) -> float | None:
        if claim.amount > claim.limit:
            return None
        if claim.lease:
            running = sorted(end for end in self._leases.get(claim.bucket, {}).values() if end > now)
            return running[len(running) - claim.limit] - now if running else 0.0
        return _until_reset(claim, now)

    def _used(self, claim: Claim, now: float) -> int:
        if claim.lease:
            return sum(end > now for end in self._leases.get(claim.bucket, {}).values())
        return self._counts.get((claim.bucket, _epoch(now, claim.window, claim.offset)), 0)

    def _take(self, hold: _Hold, request_id: str, claims: Iterable[Claim], now: float) -> None:
        for claim in claims:
            if claim.lease:
                hold.leases.append(claim.bucket)
                self._leases.setdefault(claim.bucket, {})[request_id] = hold.expires
                continue
            epoch = _epoch(now, claim.window, claim.offset)
            self._add(claim.bucket, claim.window, claim.offset, epoch, claim.amount)
            hold.parts.setdefault(claim.bucket, []).append(_Held(claim.window, claim.offset, epoch, claim.amount))

    def _add(self, bucket: str, window: int, offset: int, epoch: int, amount: int) -> None:
        key = (bucket, epoch)
        if key not in self._counts and window != FOREVER:
            heapq.heappush(self._endings, ((epoch + 2) * window + offset, bucket, epoch))
        self._counts[key] = self._counts.get(key, 0) + amount

    def _replace(self, bucket: str, parts: list[_Held], actual: int, now: float) -> None:
        """Refund the newest part first; what exceeds the holds goes to the newest window that still lasts."""
        difference = actual - sum(part.amount for part in parts)
        for part in reversed(parts):
            if difference >= 0:
                break
            refund = min(part.amount, -difference)
            if (bucket, part.epoch) in self._counts:
                self._counts[bucket, part.epoch] -= refund
            difference += refund
        if difference > 0:
            last = parts[-1]
            self._add(bucket, last.window, last.offset, _epoch(now, last.window, last.offset), difference)

    def _forget(self, now: float) -> None:
        while self._endings and self._endings[0][0] <= now:
            _, bucket, epoch = heapq.heappop(self._endings)
            self._counts.pop((bucket, epoch), None)
        while self._forgettable and self._forgettable[0][0] <= now:
            self._holds.pop(heapq.heappop(self._forgettable)[1], None)


def _epoch(now: float, window: int, offset: int) -> int:
    return 0 if window == FOREVER else math.floor((now - offset) / window)


def _until_reset(claim: Claim, now: float) -> float | None:
    if claim.window == FOREVER:
        return None
    return (_epoch(now, claim.window, claim.offset) + 1) * claim.window + claim.offset - now
