"""Step 5 of a request: one atomic hold over every limit and budget it touches; its end replaces the hold by the truth.

Failure policy: while the store cannot decide, strict limits and budgets refuse (503) and plain rate limits let pass;
`degraded` says so, and /readyz and a response header show it.
"""

import asyncio
import logging
import time

from tokenworks.core.errors import LimitReached, Unavailable
from tokenworks.core.target import Target
from tokenworks.core.usage import Usage
from tokenworks.gateway.admission.limits.base import LimitStore, Refusal
from tokenworks.gateway.admission.limits.rules import Rules, amount, bucket, claim, estimate, seconds_to_next_month
from tokenworks.gateway.metering.attempt import Asked, Attempt
from tokenworks.snapshot.records import LimitRecord, ModelRecord
from tokenworks.snapshot.subscriber import Subscriber

LEASE_SECONDS = 15.0
RENEW_SECONDS = 5.0

log = logging.getLogger(__name__)

_WORDS = {
    "requests": "requests",
    "input_tokens": "input tokens",
    "output_tokens": "output tokens",
    "tokens": "tokens",
    "uncached_input_tokens": "uncached input tokens",
    "concurrency": "requests at once",
    "spend_nano_usd": "spend",
}


class Hold:
    """What one request has reserved. Its attempts tell what it really took."""

    def __init__(self, admission: "Admission", request_id: str, limits: list[tuple[LimitRecord, str]]) -> None:
        self.attempts: list[Attempt] = []
        self._admission = admission
        self._request_id = request_id
        self._limits = limits
        self._open = bool(limits)

    async def __aenter__(self) -> "Hold":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.settle()

    async def settle(self) -> None:
        """Replace the hold by the usage of the attempts so far; a second time it does nothing."""
        if self._open:
            self._open = False
            done = [attempt.settled for attempt in self.attempts if attempt.settled is not None]
            total = sum((settled.usage.usage() for settled in done), Usage())
            charge = sum(settled.charge for settled in done)
            actual = {name: amount(limit.kind, total, charge) for limit, name in self._limits}
            await self._admission.end(self._request_id, actual)


class Admission:
    def __init__(self, snapshot: Subscriber, store: LimitStore) -> None:
        self.degraded = ""
        """Why the store cannot decide; "" while it can."""
        self._snapshot = snapshot
        self._store = store
        self._rules = Rules({})
        self._running: set[str] = set()
        self._renewing: asyncio.Task[None] | None = None

    async def hold(self, asked: Asked, model: ModelRecord, targets: list[Target]) -> Hold:
        """LimitReached naming the first limit without room and the exact wait; Unavailable when that cannot be told."""
        limits = self._current().for_request(asked.caller, model.name)
        if not limits:
            return Hold(self, asked.request_id, [])
        now = time.time()
        expected = estimate(asked.request, model, targets)
        claims = [claim(limit, expected.amount(limit), now) for limit in limits]
        try:
            refusal = await self._store.reserve(asked.request_id, claims, LEASE_SECONDS)
            self.degraded = ""
        except Unavailable as error:
            self.degraded = error.message
            if any(limit.strict or limit.kind == "spend_nano_usd" for limit in limits):
                raise
            return Hold(self, asked.request_id, [])
        names = [(limit, bucket(limit, now)[0]) for limit in limits]
        if refusal is not None:
            raise _refused(next(limit for limit, name in names if name == refusal.bucket), refusal, now)
        self._running.add(asked.request_id)
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="limits-renew")
        return Hold(self, asked.request_id, names)

    async def end(self, request_id: str, actual: dict[str, int]) -> None:
        self._running.discard(request_id)
        try:
            await self._store.settle(request_id, actual)
        except Unavailable as error:
            # The hold stays counted, which is the safe side; its leases end by themselves.
            self.degraded = error.message

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()

    def _current(self) -> Rules:
        limits = self._snapshot.state.limits
        if self._rules.source is not limits:
            self._rules = Rules(limits)
        return self._rules

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if self._running:
                try:
                    await self._store.renew(sorted(self._running), LEASE_SECONDS)
                except Unavailable as error:
                    self.degraded = error.message
                    log.warning("leases cannot be renewed: %s", error.message)


def _refused(limit: LimitRecord, refusal: Refusal, now: float) -> LimitReached:
    where = f"{limit.scope} {limit.id}" + (f", model {limit.model}" if limit.model else "")
    if limit.kind == "spend_nano_usd":
        wait = seconds_to_next_month(now) if limit.period == "month" else refusal.retry_after
        return LimitReached(
            f"The budget of {where} is used up or cannot cover this request.",
            code="insufficient_quota",
            retry_after=wait,
        )
    span = f" per {limit.window} s" if limit.window else f" per {limit.period}" if limit.period else ""
    return LimitReached(
        f"Limit reached for {where}: {refusal.limit} {_WORDS[limit.kind]}{span}, {refusal.used} in use.",
        retry_after=refusal.retry_after,
    )
