"""Which buckets a request touches, and with how much: pure arithmetic over the snapshot's limits."""

import calendar
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tokenworks.core.caller import Caller
from tokenworks.core.price import BATCH, Price, sold_tier
from tokenworks.core.request import Request
from tokenworks.core.target import Target
from tokenworks.core.usage import Usage
from tokenworks.gateway.admission.limits.base import FOREVER, Claim
from tokenworks.snapshot.records import LimitRecord, ModelRecord

DAY = 86_400
MONDAY = 4 * DAY
"""1970-01-01 was a Thursday: weeks begin this long after it."""
BYTES_PER_TOKEN = 4
USUAL_OUTPUT = 512
LARGEST_OUTPUT = 4_096
"""What a strict limit reserves for a model that states no bound of its own."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request may take: as likely, and at the most. Tokens, and nano-dollars of its dearest target."""

    usual: Usage
    most: Usage
    prices: tuple[Price, ...]
    tier: str = ""

    def amount(self, limit: LimitRecord) -> int:
        usage = self.most if limit.strict or limit.kind == "spend_nano_usd" else self.usual
        charge = 0
        if limit.kind == "spend_nano_usd":
            charge = max((price.charge(usage, self.tier) for price in self.prices), default=0)
        return amount(limit.kind, usage, charge)


def estimate(request: Request, model: ModelRecord, targets: list[Target]) -> Estimate:
    """A token is at least one byte, so a body's length bounds its input; four bytes are usual."""
    size = len(request.body)
    bound = model.max_output or model.context_length or LARGEST_OUTPUT
    asked = request.max_output_tokens
    most = Usage(input=size, output=(min(asked, bound) if asked else bound) * request.n)
    usual = Usage(input=size // BYTES_PER_TOKEN + 1, output=(min(asked or USUAL_OUTPUT, USUAL_OUTPUT)) * request.n)
    now = time.time()
    prices = {price for target in targets if (price := target.price.at(now)) is not None}
    return Estimate(usual, most, tuple(prices), BATCH if request.batch else sold_tier(request.service_tier))


def amount(kind: str, usage: Usage, charge: int) -> int:
    """What one request takes of a bucket of this kind."""
    return {
        "requests": 1,
        "concurrency": 1,
        "input_tokens": usage.prompt,
        "output_tokens": usage.output,
        "tokens": usage.total,
        "uncached_input_tokens": usage.input + usage.cache_write,
        "spend_nano_usd": charge,
    }[kind]


def bucket(limit: LimitRecord, now: float) -> tuple[str, int, int]:
    """(name, window, offset) of the bucket that a limit counts in now."""
    match limit.period:
        case "":
            return limit.name, limit.window, 0
        case "day":
            return limit.name, DAY, 0
        case "week":
            return limit.name, 7 * DAY, MONDAY
        case "month":
            return f"{limit.name}\t{datetime.fromtimestamp(now, UTC):%Y-%m}", FOREVER, 0
        case _:
            return limit.name, FOREVER, 0


def seconds_to_next_month(now: float) -> float:
    today = datetime.fromtimestamp(now, UTC)
    days = calendar.monthrange(today.year, today.month)[1]
    ends = datetime(today.year, today.month, days, tzinfo=UTC).timestamp() + DAY
    return ends - now


def claim(limit: LimitRecord, taken: int, now: float) -> Claim:
    name, window, offset = bucket(limit, now)
    return Claim(name, taken, limit.limit, window, offset, lease=limit.kind == "concurrency")


class Rules:
    """The snapshot's limits by whom they bind; made anew when the snapshot's limits change."""

    def __init__(self, limits: Mapping[str, LimitRecord]) -> None:
        self.source = limits
        self._by_owner: dict[tuple[str, str], list[LimitRecord]] = defaultdict(list)
        for limit in limits.values():
            self._by_owner[limit.scope, limit.id].append(limit)

    def for_request(self, caller: Caller, model: str) -> list[LimitRecord]:
        """Every limit that counts this request, in the order in which a refusal names them."""
        if not self._by_owner:
            return []
        owners = (
            ("key", caller.key_id),
            ("project", caller.project_id),
            ("organization", caller.organization_id),
            ("model", model),
        )
        return [limit for owner in owners for limit in self._by_owner.get(owner, ()) if limit.model in (None, model)]
