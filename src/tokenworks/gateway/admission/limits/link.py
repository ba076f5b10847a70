"""A gateway's line to its limit store: what happens while the store is away, and how everything is made good after.

- Away: nothing waits for the store more than once in a while; the caller of `reserve` gets Unavailable and follows its
  failure policy. `share` then is a store of this gateway alone for plain limits.
- Back: what was settled meanwhile is settled, reservations whose answer never came are given back.
- Lost (flushed, restarted without its data): the holds of running requests are reserved again.
"""

import asyncio
import contextlib
import logging
import time

from msgspec.structs import replace

from tokenworks.core.errors import Unavailable
from tokenworks.gateway.admission.limits.base import Claim, Decision, LimitStore, Reading
from tokenworks.gateway.admission.limits.memory import MemoryStore

LEASE_SECONDS = 15.0
PULSE_SECONDS = 1.0
AGAIN_SECONDS = 0.05
"""A store that went away is asked again so soon, then after twice the time, up to a pulse: most only restart."""
RENEW_EVERY = 5
"""Pulses: the leases of running requests are renewed only so often."""
MOST_OPEN_ENDS = 200_000
"""Settlements that wait for the store; beyond it the oldest are left to the expiry of their holds."""
MOST_SEEN = 100_000
AT_ONCE = 64

log = logging.getLogger(__name__)


class StoreLink:
    """`away`: why the store cannot decide; "" while it can."""

    def __init__(self, store: LimitStore, gateway_id: str) -> None:
        self.away = ""
        self._store = store
        self._gateway_id = gateway_id
        self._running: dict[str, list[tuple[list[Claim], list[Reading]]]] = {}
        self._unsettled: dict[str, dict[str, int]] = {}
        self._generation = ""
        self._gateways = 1
        self._share: MemoryStore | None = None
        self._shared: set[str] = set()
        """Buckets whose count in `_share` has begun."""
        self._seen: dict[str, tuple[int, float]] = {}
        """What plain buckets held when last read, and until when (monotonic)."""
        self._pulse: asyncio.Task[None] | None = None
        self._went_away = asyncio.Event()
        self._confirming: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Keep in touch with the store; a store within this process needs it only for leases."""
        if self._pulse is None:
            self._pulse = asyncio.create_task(self._beat(), name="limits-pulse")

    async def close(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)
        await asyncio.gather(*self._confirming)
        if not self.away:
            with contextlib.suppress(Unavailable):
                await self._settle_all()
        await self._store.close()

    async def reserve(self, request_id: str, claims: list[Claim]) -> Decision:
        """Unavailable at once while the store is known to be away."""
        self.start()
        self._require()
        try:
            decision = await self._store.reserve(request_id, claims, LEASE_SECONDS)
        except BaseException as error:
            # Nobody knows whether it was granted; settling with nothing is right for both.
            self._open_end(request_id, {})
            if isinstance(error, Unavailable):
                self._lost(error.message)
            raise
        if not self._store.in_process:
            self._remember(claims, decision.readings)
        if decision.refusal is None:
            self._running[request_id] = [(claims, decision.readings)]
        return decision

    async def extend(self, request_id: str, claims: list[Claim]) -> Decision:
        """KeyError when there is no such hold, which a share may have given."""
        self._require()
        if request_id not in self._running:
            raise KeyError(request_id)
        try:
            decision = await self._store.extend(request_id, claims)
        except Unavailable as error:
            self._lost(error.message)
            raise
        if decision.refusal is None:
            self._running[request_id].append((claims, decision.readings))
        return decision

    async def read(self, claims: list[Claim]) -> list[Reading]:
        """What the buckets hold now; nothing is reserved. Unavailable as `reserve`."""
        self._require()
        try:
            return await self._store.read(claims)
        except Unavailable as error:
            self._lost(error.message)
            raise

    async def settle(self, request_id: str, actual: dict[str, int]) -> None:
        """Sent, not waited for: it never fails, and what the store does not confirm is made good later."""
        if self._share is not None:
            await self._share.settle(request_id, actual)
        if self._running.pop(request_id, None) is None:
            return
        if self._store.in_process:
            await self._store.settle(request_id, actual)
            return
        self._open_end(request_id, actual)
        if self.away:
            return
        task = asyncio.create_task(self._confirm(request_id, actual))
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)
        await asyncio.sleep(0)  # it is on its way before anything that comes after

    async def _confirm(self, request_id: str, actual: dict[str, int]) -> None:
        try:
            await self._store.settle(request_id, actual)
        except Unavailable as error:
            self._lost(error.message)
        else:
            self._unsettled.pop(request_id, None)

    async def confirmed(self) -> None:
        await asyncio.gather(*self._confirming)
        await self._settle_all()

    async def reserve_share(self, request_id: str, claims: list[Claim]) -> Decision:
        """Out of what this gateway may give by itself: its even part of each limit, less its part of what was used."""
        if self._share is None:
            self._share = MemoryStore()
            for running, held in self._running.items():
                leases = [claim for claim in _granted(held) if claim.lease]
                await self._share.reserve(running, leases, LEASE_SECONDS, force=True)
        parts = [replace(claim, limit=max(claim.limit // self._gateways, 1)) for claim in claims]
        for part in parts:
            if part.bucket not in self._shared:
                self._shared.add(part.bucket)
                used, until = self._seen.get(part.bucket, (0, 0.0))
                if not part.lease and time.monotonic() < until:
                    self._share.start_at(part, -(-used // self._gateways))
        return await self._share.reserve(request_id, parts, LEASE_SECONDS)

    def _require(self) -> None:
        if self.away:
            raise Unavailable(self.away, code="limit_store_unavailable", retry_after=PULSE_SECONDS)

    def _open_end(self, request_id: str, actual: dict[str, int]) -> None:
        self._unsettled[request_id] = actual
        if len(self._unsettled) > MOST_OPEN_ENDS:
            del self._unsettled[next(iter(self._unsettled))]

    def _remember(self, claims: list[Claim], readings: list[Reading]) -> None:
        for claim, reading in zip(claims, readings, strict=True):
            if claim.floor is None and reading.resets_in is not None:
                self._seen[claim.bucket] = (reading.used, time.monotonic() + reading.resets_in)
        if len(self._seen) > MOST_SEEN:
            self._seen.clear()

    def _lost(self, why: str) -> None:
        if not self.away:
            log.warning("the limit store is away: %s", why)
            self._went_away.set()
        self.away = why

    async def _beat(self) -> None:
        beats, pause = 0, PULSE_SECONDS
        while True:
            ids = list(self._running) if beats % RENEW_EVERY == 0 else []
            try:
                await self._meet(ids)
                beats, pause = beats + 1, PULSE_SECONDS
            except Unavailable as error:
                self._lost(error.message)
                beats, pause = 0, min(2 * pause, PULSE_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._went_away.wait()
                    self._went_away.clear()
                    pause = AGAIN_SECONDS

    async def _meet(self, ids: list[str]) -> None:
        if self._share is not None:
            await self._share.renew(self._gateway_id, list(self._running), LEASE_SECONDS)
        pulse = await self._store.renew(self._gateway_id, ids, LEASE_SECONDS)
        self._gateways = max(pulse.gateways, 1)
        if self._generation and pulse.generation != self._generation:
            log.warning("the limit store has lost what it knew: %d holds are reserved again", len(self._running))
            for request_id, held in list(self._running.items()):
                await self._store.reserve(request_id, _granted(held), LEASE_SECONDS, force=True)
        self._generation = pulse.generation
        await self._settle_all()
        if self.away:
            log.warning("the limit store is back")
            self.away, self._share = "", None
            self._shared.clear()

    async def _settle_all(self) -> None:
        waiting = list(self._unsettled.items())
        for first in range(0, len(waiting), AT_ONCE):
            some = waiting[first : first + AT_ONCE]
            await asyncio.gather(*[self._store.settle(*each) for each in some])
            for request_id, _ in some:
                self._unsettled.pop(request_id, None)


def _granted(held: list[tuple[list[Claim], list[Reading]]]) -> list[Claim]:
    pairs = (pair for claims, readings in held for pair in zip(claims, readings, strict=True))
    return [replace(claim, amount=got.granted) for claim, got in pairs]
