"""The limit store of one process. Exact by construction: nothing awaits between check and change."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tokenworks.core.clock import Clock, SystemClock
from tokenworks.core.windows import FOREVER, beginning, epoch_at
from tokenworks.gateway.admission.limits.base import Claim, Decision, Pulse, Reading, Refusal

REMEMBER_SECONDS = 3600.0
"""How long a settled request is known, so that settling twice changes nothing."""
LONGEST_WINDOW = 32 * 86_400


@dataclass(slots=True)
class _Part:
    """What a hold has of one window; `slack` of it may come back, `budget`: its truth comes from the ledger."""

    window: int
    offset: int
    epoch: int
    amount: int
    slack: int
    budget: bool


@dataclass(slots=True)
class _Hold:
    """`parts` by bucket: a bucket that was extended in a later window has one part for each window."""

    expires: float
    parts: dict[str, list[_Part]] = field(default_factory=dict)
    leases: list[str] = field(default_factory=list)
    settled: bool = False


class MemoryStore:
    in_process = True

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._begun = self._clock.now_ns() / 1e9 - self._clock.monotonic()
        self._counts: dict[tuple[str, int], int] = {}
        self._slack: dict[tuple[str, int], int] = {}
        self._leases: dict[str, dict[str, float]] = {}
        self._holds: dict[str, _Hold] = {}
        self._endings: list[tuple[float, str, int]] = []
        """Windows that were charged, by the time after which nobody can ask for them."""
        self._expiring: list[tuple[float, str]] = []
        self._forgettable: list[tuple[float, str]] = []

    async def reserve(self, request_id: str, claims: list[Claim], ttl: float, *, force: bool = False) -> Decision:
        now = self._now()
        self._forget(now)
        known = self._holds.get(request_id)
        if known is not None:
            return Decision(None, [self._reading(claim, now, self._held(known, claim)) for claim in claims])
        granted = [claim.amount for claim in claims] if force else self._grant(claims, now)
        if isinstance(granted, Refusal):
            return Decision(granted, [self._reading(claim, now, 0) for claim in claims])
        hold = self._holds[request_id] = _Hold(now + ttl)
        heapq.heappush(self._expiring, (hold.expires, request_id))
        return self._take(hold, request_id, claims, granted, now)

    async def extend(self, request_id: str, claims: list[Claim]) -> Decision:
        now = self._now()
        hold = self._holds.get(request_id)
        if hold is None or hold.settled:
            raise KeyError(request_id)
        granted = self._grant(claims, now)
        if isinstance(granted, Refusal):
            return Decision(granted, [self._reading(claim, now, 0) for claim in claims])
        return self._take(hold, request_id, claims, granted, now)

    async def renew(self, gateway_id: str, request_ids: list[str], ttl: float) -> Pulse:
        now = self._now()
        for request_id in request_ids:
            hold = self._holds.get(request_id)
            if hold is None or hold.settled:
                continue
            hold.expires = now + ttl
            for bucket in hold.leases:
                self._leases.setdefault(bucket, {})[request_id] = hold.expires
        self._forget(now)
        return Pulse("", 1)

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
        return [self._reading(claim, now, 0) for claim in claims]

    async def close(self) -> None:
        """Nothing is kept outside this process."""

    def start_at(self, claim: Claim, used: int) -> None:
        """The current window of a bucket already holds this."""
        epoch = self._epoch(claim)
        self._add(claim, epoch, used - self._counts.get((claim.bucket, epoch), 0))

    def _now(self) -> float:
        """Unix seconds of a clock that never jumps."""
        return self._begun + self._clock.monotonic()

    def _epoch(self, claim: Claim) -> int:
        return epoch_at(self._moment(claim.window), claim.window, claim.offset)

    def _moment(self, window: int) -> float:
        return self._now() if window >= 0 else self._clock.now_ns() / 1e9

    def _grant(self, claims: Iterable[Claim], now: float) -> list[int] | Refusal:
        granted = []
        for claim in claims:
            room = claim.limit - self._used(claim, now)
            if claim.amount <= room:
                granted.append(claim.amount)
            elif claim.smallest <= room:
                granted.append(max(claim.smallest, min(claim.middle, room)))
            else:
                pending = self._slack.get((claim.bucket, self._epoch(claim)), 0)
                return Refusal(claim.bucket, claim.limit, claim.limit - room, self._wait(claim, now), pending)
        return granted

    def _wait(self, claim: Claim, now: float) -> float | None:
        if claim.smallest > claim.limit:
            return None
        if claim.lease:
            running = sorted(end for end in self._leases.get(claim.bucket, {}).values() if end > now)
            return running[len(running) - claim.limit] - now if running else 0.0
        return self._until_reset(claim)

    def _until_reset(self, claim: Claim) -> float | None:
        if claim.window == FOREVER:
            return None
        moment = self._moment(claim.window)
        epoch = epoch_at(moment, claim.window, claim.offset)
        return beginning(epoch + 1, claim.window, claim.offset) - moment

    def _used(self, claim: Claim, now: float) -> int:
        if claim.lease:
            return sum(end > now for end in self._leases.get(claim.bucket, {}).values())
        epoch = self._epoch(claim)
        used = self._counts.get((claim.bucket, epoch), 0)
        if claim.floor is not None and used < claim.floor and claim.since == epoch:
            self._add(claim, epoch, claim.floor - used)
            return claim.floor
        return used

    def _reading(self, claim: Claim, now: float, granted: int) -> Reading:
        return Reading(self._used(claim, now), self._until_reset(claim), granted)

    def _held(self, hold: _Hold, claim: Claim) -> int:
        if claim.lease:
            return int(claim.bucket in hold.leases)
        return sum(part.amount for part in hold.parts.get(claim.bucket, ()))

    def _take(
        self, hold: _Hold, request_id: str, claims: Sequence[Claim], granted: Sequence[int], now: float
    ) -> Decision:
        readings = []
        for claim, amount in zip(claims, granted, strict=True):
            if claim.lease:
                hold.leases.append(claim.bucket)
                self._leases.setdefault(claim.bucket, {})[request_id] = hold.expires
                readings.append(self._reading(claim, now, amount))
                continue
            epoch, slack = self._epoch(claim), amount - min(claim.smallest, amount)
            self._add(claim, epoch, amount)
            if slack:
                self._loosen((claim.bucket, epoch), slack)
            part = _Part(claim.window, claim.offset, epoch, amount, slack, claim.floor is not None)
            hold.parts.setdefault(claim.bucket, []).append(part)
            readings.append(Reading(self._counts[claim.bucket, epoch], self._until_reset(claim), amount))
        return Decision(None, readings)

    def _add(self, claim: Claim, epoch: int, amount: int) -> None:
        self._count(claim.bucket, claim.window, claim.offset, epoch, amount)

    def _count(self, bucket: str, window: int, offset: int, epoch: int, amount: int) -> None:
        key = (bucket, epoch)
        if key not in self._counts and window != FOREVER:
            span = window if window > 0 else LONGEST_WINDOW
            heapq.heappush(self._endings, (beginning(epoch + 1, window, offset) + span, bucket, epoch))
        self._counts[key] = self._counts.get(key, 0) + amount

    def _loosen(self, key: tuple[str, int], slack: int) -> None:
        left = self._slack.get(key, 0) + slack
        if left > 0:
            self._slack[key] = left
        else:
            self._slack.pop(key, None)

    def _replace(self, bucket: str, parts: list[_Part], actual: int, now: float) -> None:
        """Refund the newest part first; what exceeds the holds goes to the newest window that still lasts."""
        difference = actual - sum(part.amount for part in parts)
        for part in reversed(parts):
            self._loosen((bucket, part.epoch), -part.slack)
            if difference < 0:
                refund = min(part.amount, -difference)
                self._refund(bucket, part, refund)
                difference += refund
        if difference > 0:
            last = parts[-1]
            epoch = epoch_at(self._moment(last.window), last.window, last.offset)
            self._count(bucket, last.window, last.offset, epoch, difference)

    def _refund(self, bucket: str, part: _Part, amount: int) -> None:
        if (bucket, part.epoch) in self._counts:
            self._counts[bucket, part.epoch] -= amount

    def _forget(self, now: float) -> None:
        while self._endings and self._endings[0][0] <= now:
            _, bucket, epoch = heapq.heappop(self._endings)
            self._counts.pop((bucket, epoch), None)
            self._slack.pop((bucket, epoch), None)
        while self._forgettable and self._forgettable[0][0] <= now:
            self._holds.pop(heapq.heappop(self._forgettable)[1], None)
        while self._expiring and self._expiring[0][0] <= now:
            self._expire(heapq.heappop(self._expiring)[1], now)

    def _expire(self, request_id: str, now: float) -> None:
        hold = self._holds.get(request_id)
        if hold is None or hold.settled:
            return
        if hold.expires > now:
            heapq.heappush(self._expiring, (hold.expires, request_id))
            return
        for bucket in hold.leases:
            self._leases.get(bucket, {}).pop(request_id, None)
        for bucket, parts in hold.parts.items():
            for part in parts:
                self._loosen((bucket, part.epoch), -part.slack)
                part.slack = 0
                if part.budget:
                    self._refund(bucket, part, part.amount)
                    part.amount = 0
        heapq.heappush(self._forgettable, (now + REMEMBER_SECONDS, request_id))
