"""What every limit store does, whatever it is made of. Integers only; the store's own clock decides.

A bucket counts one thing (requests, tokens, nano-dollars) in windows that are aligned and never reset by an edit of the
limit. A reservation names every bucket a request touches and is granted whole or not at all. Concurrency is a set of
leases that expire, never a counter, so that no crash can leak it.

Two clocks: windows of seconds and leases follow one that never goes back, calendar windows follow the wall.
"""

from typing import Protocol

import msgspec

from tokenworks.core.windows import FOREVER

LARGEST = 2**53 - 1
"""Counts are exact up to here: 9,007,199 USD in nano-dollars."""


class Claim(msgspec.Struct, frozen=True, gc=False):
    """`amount` of a bucket that allows `limit` per `window` (see core.windows).

    Where `amount` has no room, `enough` is granted, or what is left if that is at least `least`; by default it is all
    or nothing. What was granted above `least` may come back: it is what others may wait for.
    `offset` shifts the window's borders in seconds: -3600 for midnights one hour east of Greenwich.
    `lease` marks a concurrency bucket: `amount` is 1 and is held until the request is settled or stops renewing.
    `floor` marks a budget: what the ledger knows to be spent in the window number `since`. A count below it is raised
    to it, and the hold of a gateway that died is given back, because what it really took comes with a later floor.
    """

    bucket: str
    amount: int
    limit: int
    window: int = FOREVER
    offset: int = 0
    lease: bool = False
    least: int | None = None
    enough: int | None = None
    floor: int | None = None
    since: int = 0

    @property
    def smallest(self) -> int:
        return self.amount if self.least is None else self.least

    @property
    def middle(self) -> int:
        return self.smallest if self.enough is None else self.enough


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """The first bucket that has no room. `retry_after` seconds until it will have some, if nobody else comes first:
    None when it never will by itself (a budget in total, an amount above the limit).

    `pending` of what is used is held by running requests and may come back. `rebuilding`: the store was lost, and what
    budgets had spent is still being collected."""

    bucket: str
    limit: int
    used: int
    retry_after: float | None
    pending: int = 0
    rebuilding: bool = False


class Reading(msgspec.Struct, frozen=True, gc=False):
    """What a bucket holds now, and what this reservation got of it; `resets_in` seconds, None when it never resets."""

    used: int
    resets_in: float | None
    granted: int = 0


class Decision(msgspec.Struct, frozen=True):
    """`readings`: one for each claim, in order, as of after the decision."""

    refusal: Refusal | None
    readings: list[Reading]


class Pulse(msgspec.Struct, frozen=True, gc=False):
    """`generation` changes when the store has lost what it knew; `gateways` are those that live."""

    generation: str
    gateways: int


class LimitStore(Protocol):
    """Raises core.errors.Unavailable when it cannot decide: the caller then follows its failure policy."""

    in_process: bool
    """It answers at once."""

    async def reserve(self, request_id: str, claims: list[Claim], ttl: float, *, force: bool = False) -> Decision:
        """All claims or none. Repeating a granted reservation changes nothing and is granted. A hold that is neither
        settled nor renewed for `ttl` seconds gives its leases and its part of budgets back; other amounts stay
        counted (fail closed). `force`: it was granted before the store lost it."""
        ...

    async def extend(self, request_id: str, claims: list[Claim]) -> Decision:
        """More of the buckets of a hold, into the windows that are current now. All or none. KeyError for no hold."""
        ...

    async def renew(self, gateway_id: str, request_ids: list[str], ttl: float) -> Pulse:
        """The gateway is alive and these requests are running."""
        ...

    async def settle(self, request_id: str, actual: dict[str, int]) -> bool:
        """Replace what was held of each bucket by `actual` (missing: nothing was used) and end the leases.

        False when the request was settled before: then nothing changes. A refund goes only into the window that was
        charged; when more was used than held, the rest is charged to the current one.
        """
        ...

    async def read(self, claims: list[Claim]) -> list[Reading]:
        """Consistent within one call."""
        ...

    async def close(self) -> None: ...
