"""Which buckets a request touches, and with how much: pure arithmetic over the snapshot's limits."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from tokenworks.core.caller import Caller
from tokenworks.core.messages import Image
from tokenworks.core.price import BATCH, Price, sold_tier
from tokenworks.core.request import Conversation, Prompts, Request
from tokenworks.core.target import Target
from tokenworks.core.usage import Usage
from tokenworks.core.windows import PERIODS, epoch_at
from tokenworks.gateway.admission.limits.base import Claim
from tokenworks.gateway.metering.counting import BYTES_PER_TOKEN
from tokenworks.snapshot.records import LimitRecord, ModelRecord, SpendRecord

TEMPLATE_TOKENS = 64
"""What a model's chat template may add to a conversation at the most, beyond a token for every byte."""
IMAGE_TOKENS = 4_096
"""At the most, for an image that is only named by its URL."""
USUAL_OUTPUT = 512
"""Until a key's answers are known."""
LARGEST_OUTPUT = 131_072
"""What a strict limit reserves for a model that states no bound of its own; such a stream is watched."""
LEAST_OUTPUT = 16
"""A stream that can be ended starts when there is room for so much."""
NEVER = 2**63
SPEND = "spend_nano_usd"


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request may take: at the least, as likely, and at the most. Tokens; `prices` of its targets.

    `endable`: the gateway can end its answer anywhere, so it may start with less than the most. `bounded`: the most is
    certain. `choices` share the output. `tier`: the one that is asked for."""

    least: Usage
    usual: Usage
    most: Usage
    prices: tuple[Price, ...]
    endable: bool
    bounded: bool
    choices: int
    tier: str = ""

    def amount(self, kind: str, usage: Usage) -> int:
        if kind != SPEND:
            return amount(kind, usage, 0)
        return max((_dearest(price, usage, self.tier) for price in self.prices), default=0)

    def claim(self, limit: LimitRecord, spend: SpendRecord | None = None, unshipped: int = 0) -> Claim:
        """`unshipped` nano-dollars of this gateway that the ledger does not know yet."""
        window = PERIODS[limit.period] if limit.period else limit.window
        if limit.kind in ("requests", "concurrency"):
            return Claim(limit.name, 1, limit.limit, window, limit.offset, lease=limit.kind == "concurrency")
        usual = self.amount(limit.kind, self.usual)
        if not is_exact(limit):
            # It may overshoot by what the estimate was wrong, so it is not refused for output that may never come.
            least = min(self.amount(limit.kind, Usage(input=self.usual.input, output=min(self.usual.output, 1))), usual)
            return Claim(limit.name, usual, limit.limit, window, limit.offset, least=least, enough=usual)
        most = max(self.amount(limit.kind, self.most), usual)
        least = min(self.amount(limit.kind, self.least), most) if self.endable else most
        floor = since = None
        if limit.kind == SPEND:
            begins = spend.begins if spend is not None else 0
            floor, since = (spend.spent if spend is not None else 0) + unshipped, epoch_at(begins, window, limit.offset)
        return Claim(
            limit.name, most, limit.limit, window, limit.offset, False, least, max(least, usual), floor, since or 0
        )

    def output_within(self, kind: str, granted: int) -> int:
        """Tokens of output that still fit what was granted."""
        if self.amount(kind, self.with_output(LARGEST_OUTPUT * 16)) <= granted:
            return NEVER
        low, high = 0, LARGEST_OUTPUT * 16
        while high - low > 1:
            middle = (low + high) // 2
            if self.amount(kind, self.with_output(middle)) <= granted:
                low = middle
            else:
                high = middle
        return low

    def with_output(self, tokens: int) -> Usage:
        return Usage(input=self.most.input, output=tokens)


def is_exact(limit: LimitRecord) -> bool:
    """Never exceeded: a strict limit, and every budget that gateways know of."""
    return limit.strict or limit.kind == SPEND


def estimate(request: Request, model: ModelRecord, targets: list[Target], learned: int | None) -> Estimate:
    """A token is at least one byte, so a body's length bounds its input; four bytes are usual."""
    size, task = len(request.body), request.task
    generates = isinstance(task, Conversation | Prompts)
    choices = request.n * (len(task.prompts) if isinstance(task, Prompts) else 1) if generates else 0
    bound = model.max_output or model.context_length
    asked = request.max_output_tokens
    largest = min(asked, bound) if asked and bound else asked or bound or LARGEST_OUTPUT
    usual = min(largest, USUAL_OUTPUT if learned is None else learned)
    hardest = size + (TEMPLATE_TOKENS + _image_tokens(task) if isinstance(task, Conversation) else 0)
    now = time.time()
    prices = {id(price): price for target in targets if (price := target.price.at(now)) is not None}
    return Estimate(
        Usage(input=hardest, output=min(largest, LEAST_OUTPUT) * choices),
        Usage(input=size // BYTES_PER_TOKEN + 1, output=usual * choices),
        Usage(input=hardest, output=largest * choices),
        tuple(prices.values()),
        generates and not request.own,
        bool(asked or bound),
        max(choices, 1),
        BATCH if request.batch else sold_tier(request.service_tier),
    )


def amount(kind: str, usage: Usage, charge: int) -> int:
    """What one request takes of a bucket of this kind."""
    match kind:
        case "requests" | "concurrency":
            return 1
        case "input_tokens":
            return usage.prompt
        case "output_tokens":
            return usage.output
        case "tokens":
            return usage.total
        case "uncached_input_tokens":
            return usage.input + usage.cache_write
        case _:
            return charge


class Rules:
    """The snapshot's limits by whom they bind; made anew when the snapshot's limits change."""

    def __init__(self, limits: Mapping[str, LimitRecord]) -> None:
        self.source = limits
        self._by_owner: dict[tuple[str, str], list[LimitRecord]] = defaultdict(list)
        for limit in limits.values():
            self._by_owner[limit.scope, limit.id].append(limit)
        self.of_providers = any(limit.scope == "provider" for limit in limits.values())
        """Whether some limit counts what is bought, which depends on where a request goes."""

    def for_request(self, caller: Caller, model: str) -> list[LimitRecord]:
        """Every limit of the caller and the model that counts this request, in the order of refusals."""
        if not self._by_owner:
            return []
        owners = (
            ("key", caller.key_id),
            ("project", caller.project_id),
            ("organization", caller.organization_id),
            ("model", model),
        )
        return [limit for owner in owners for limit in self._by_owner.get(owner, ()) if limit.model in (None, model)]

    def for_provider(self, provider: str, model: str) -> list[LimitRecord]:
        """Limits of what is bought from a provider."""
        return [limit for limit in self._by_owner.get(("provider", provider), ()) if limit.model in (None, model)]


def _image_tokens(task: Conversation) -> int:
    parts = (part for message in task.messages for part in message.parts)
    return IMAGE_TOKENS * sum(isinstance(part, Image) and part.url is not None for part in parts)


def _dearest(price: Price, usage: Usage, tier: str) -> int:
    """Whatever kind the tokens turn out to be, and wherever they are made."""
    regions, varies = _variants(price)
    shapes = [Usage(input=usage.input, output=usage.output, priced_requests=1)]
    if varies:
        written, output = usage.input, usage.output
        shapes.append(
            Usage(cache_write=written, cache_write_1h=written, output=output, reasoning=output, priced_requests=1)
        )
    return max(price.charge(each, tier, region) for each in shapes for region in regions)


@lru_cache(maxsize=1024)
def _variants(price: Price) -> tuple[tuple[str, ...], bool]:
    """Regions that have a price of their own, and whether some kinds of tokens have."""
    kinds = set(price.rates).union(*(each.factors for each in price.when))
    return ("", *{each.region for each in price.when if each.region}), bool(kinds & _DEARER)


_DEARER = {"cache_write", "cache_write_1h", "reasoning"}
