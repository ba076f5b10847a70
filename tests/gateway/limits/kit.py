"""A gateway's admission without the rest of the gateway, for tests and for benchmarks/limits.py."""

import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tokenworks.core.caller import Caller
from tokenworks.core.errors import Unavailable
from tokenworks.core.price import Price, Tariff
from tokenworks.core.request import Conversation, Request
from tokenworks.core.target import RouteLimits, Target
from tokenworks.gateway.admission.limits.admit import Admission
from tokenworks.gateway.admission.limits.base import LimitStore
from tokenworks.gateway.admission.limits.hold import Hold
from tokenworks.gateway.admission.limits.unshipped import Unshipped
from tokenworks.gateway.admission.limits.valkey import ValkeyStore
from tokenworks.gateway.metering.attempt import Asked
from tokenworks.journal.records import Settled, UsageRecord
from tokenworks.snapshot.records import LimitRecord, ModelRecord, SpendRecord, UpstreamRecord
from tokenworks.snapshot.state import State

DAY = 86_400
PRICE = Price({"input": 150_000_000, "output": 600_000_000})
"""150 and 600 nano-dollars for a token."""
_NUMBERS = itertools.count()


@dataclass
class Snapshot:
    state: State


@dataclass
class Ran:
    """What a hold reads of an attempt."""

    provider: str
    settled: Settled
    position: int = 1
    begun_at: int = field(default_factory=time.time_ns)

    @property
    def spent(self) -> int:
        return self.settled.charge

    def part(self) -> None:
        """It has nothing to let go of."""


@dataclass
class Desk:
    """One gateway's admission. `url` as for --limits."""

    store: LimitStore
    limits: list[LimitRecord]
    spends: list[SpendRecord] = field(default_factory=list)
    wait: float = 0.0
    name: str = "gw"
    max_output: int | None = 1_000
    prices: Price = PRICE
    counts: int | None = None
    """What an engine of ours tells of a prompt; None: others answer; 0: it cannot tell."""
    asked_to_count: int = 0

    def __post_init__(self) -> None:
        upstream = UpstreamRecord(
            "up", "acme", ("openai_chat",), "http://127.0.0.1:9/v1", local=self.counts is not None
        )
        other = UpstreamRecord("up2", "other", ("openai_chat",), "http://127.0.0.1:9/v1", local=upstream.local)
        self.model = ModelRecord("m", 1, (), max_output=self.max_output)
        self.snapshot = Snapshot(State.of(models=[self.model], upstreams=[upstream, other]))
        self.enforce(*self.limits)
        tariff = Tariff((self.prices,))
        self.targets = [Target(each, "m1", RouteLimits(), tariff) for each in ("up", "up2")]
        unshipped = Unshipped(self.name)
        self.admission = Admission(
            self.snapshot,  # type: ignore[arg-type]
            self.store,
            unshipped,
            self.name,
            wait=self.wait,
            counter=self._count,
        )

    async def _count(self, state: State, request: Request, target: Target) -> int:
        self.asked_to_count += 1
        if not self.counts:
            raise Unavailable("The engine is restarting.")
        return self.counts

    def enforce(self, *limits: LimitRecord, spends: list[SpendRecord] | None = None) -> None:
        state = self.snapshot.state
        spends = self.spends if spends is None else spends
        self.snapshot.state = State.of(
            models=state.models.values(), upstreams=state.upstreams.values(), limits=limits, spends=spends
        )

    async def hold(self, body: int = 100, key: str = "k", **members: Any) -> Hold:
        """Raises what a caller would be told."""
        task = Conversation([])
        request = Request("m", task, "openai_chat", body=b"x" * body, **members)
        asked = Asked(f"{os.getpid()}-{time.monotonic_ns()}-{next(_NUMBERS)}", 0, Caller(key, "p", "o"), request)
        return await self.admission.hold(asked, self.snapshot.state, self.targets)


@contextlib.asynccontextmanager
async def valkey_at(url: str, timeout: float = 10.0) -> AsyncIterator[ValkeyStore]:
    store = ValkeyStore(url, timeout=timeout)
    try:
        yield store
    finally:
        await store.close()


def ran(hold: Hold, input: int, output: int, provider: str = "acme", outcome: str = "completed") -> int:
    """An attempt of this hold ended so; what it is charged."""
    charge = 150 * input + 600 * output
    usage = UsageRecord(input=input, output=output)
    settled = Settled(hold.asked.request_id, len(hold.attempts) + 1, 0, outcome, usage, charge)
    hold.attempts.append(Ran(provider, settled))  # type: ignore[arg-type]
    return charge


def limit(kind: str, amount: int, *, scope: str = "key", strict: bool = True, period: str = "") -> LimitRecord:
    owner = {"key": "k", "project": "p", "organization": "o", "model": "m", "provider": "acme"}[scope]
    window = 0 if period or kind == "concurrency" else DAY
    return LimitRecord(scope, owner, None, kind, amount, window, period, strict)
