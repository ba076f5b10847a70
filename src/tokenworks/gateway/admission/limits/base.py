"""What every limit store does, whatever it is made of. Integers only; the store's own clock decides.

A bucket counts one thing (requests, tokens, nano-dollars) in windows that are aligned to the epoch and never reset
by an edit of the limit. A reservation names every bucket a request touches and is granted whole or not at all.
Concurrency is a set of leases that expire, never a counter, so that no crash can leak it.
"""

from dataclasses import dataclass
from typing import Protocol

FOREVER = 0
"""A window that never ends: a budget in total, or a concurrency limit."""


@dataclass(frozen=True, slots=True)
class Claim:
    """`amount` of a bucket that allows `limit` per `window` seconds (FOREVER: in all).

    `offset` shifts the window's borders in seconds (a budget's local midnight). `lease` marks a concurrency bucket:
    `amount` is 1 and is held until the request is settled or stops renewing its lease.
    """

    bucket: str
    amount: int
    limit: int
    window: int = FOREVER
    offset: int = 0
    lease: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """The first bucket that has no room. `retry_after` seconds until it will have some, if nobody else comes first:
    None when it never will by itself (a budget in total, an amount above the limit)."""

    bucket: str
    limit: int
    used: int
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a bucket holds now; `resets_in` seconds, None when it never resets."""

    used: int
    resets_in: float | None


class LimitStore(Protocol):
    """Raises core.errors.Unavailable when it cannot decide: the caller then follows its failure policy."""

    async def reserve(self, request_id: str, claims: list[Claim], ttl: float) -> Refusal | None:
        """All claims or none. Repeating a granted reservation changes nothing and is granted. A hold that is neither
        settled nor renewed for `ttl` seconds gives its leases back; its amounts stay counted (fail closed)."""
        ...

    async def extend(self, request_id: str, claims: list[Claim]) -> Refusal | None:
        """More of the buckets of a hold, into the windows that are current now. All or none."""
        ...

    async def renew(self, request_ids: list[str], ttl: float) -> None:
        """The gateway is alive and these requests are running."""
        ...

    async def settle(self, request_id: str, actual: dict[str, int]) -> bool:
        """Replace what was held of each bucket by `actual` (missing: nothing was used) and end the leases.

        False when the request was settled before: then nothing changes. A refund goes only into the window that was
        charged; when more was used than held, the rest is charged to that same window while it lasts, else to the
        current one.
        """
        ...

    async def read(self, claims: list[Claim]) -> list[Reading]:
        """For rate-limit headers; consistent within one call."""
        ...
