"""Which buckets a request touches, and with how much: pure arithmetic over the snapshot's limits.

What follows from the limits alone is worked out once for each snapshot of them, and which of them bind a key's requests
for a model once for each such pair.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec

from tokenworks.core.caller import Caller
from tokenworks.core.messages import Image
from tokenworks.core.price import BATCH, OWN_KEY, Price, sold_tier
from tokenworks.core.request import Conversation, Prompts, Request
from tokenworks.core.target import Target
from tokenworks.core.usage import BYTES_PER_TOKEN, Usage
from tokenworks.core.windows import PERIODS, epoch_at
from tokenworks.gateway.admission.limits.base import Claim
from tokenworks.gateway.metering.counting import sent
from tokenworks.snapshot.records import LimitRecord, ModelRecord, OwnKeysRecord, SpendRecord

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
TOLD = frozenset({"requests", "tokens", "input_tokens", "uncached_input_tokens", "output_tokens"})
"""Kinds of limits that families tell of in headers."""
GROWING = frozenset({"output_tokens", "tokens", SPEND})
"""Kinds of which a stream takes more the longer it is."""
MOST_BOUND = 100_000


class Rule(msgspec.Struct, frozen=True):
    """A limit, and what follows from it for every request. `name` is its bucket, `window` as in core.windows.

    `exact`: never exceeded, as a strict limit and every budget that gateways know of. `told`: to the caller; what a
    provider grants us is nobody else's business. `fixed` is what each request takes, where that is always the same."""

    limit: LimitRecord
    name: str
    kind: str
    window: int
    exact: bool
    bought: bool
    told: bool
    grows: bool
    fixed: Claim | None

    @classmethod
    def of(cls, limit: LimitRecord) -> "Rule":
        kind, bought, window = limit.kind, limit.scope == "provider", limit.window
        if limit.period:
            window = PERIODS[limit.period]
        fixed = None
        if kind in ("requests", "concurrency"):
            fixed = Claim(limit.name, 1, limit.limit, window, limit.offset, lease=kind == "concurrency")
        exact, told = limit.strict or kind == SPEND, kind in TOLD and not bought
        return cls(limit, limit.name, kind, window, exact, bought, told, kind in GROWING, fixed)


class Estimate(msgspec.Struct, frozen=True):
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

    def claim(self, rule: Rule, spend: SpendRecord | None = None, unshipped: int = 0) -> Claim:
        """`unshipped` nano-dollars of this gateway that the ledger does not know yet."""
        if rule.fixed is not None:
            return rule.fixed
        kind, limit, offset = rule.kind, rule.limit.limit, rule.limit.offset
        usual = self.amount(kind, self.usual)
        if not rule.exact:
            # It may overshoot by what the estimate was wrong, so it is not refused for output that may never come.
            least = min(self.amount(kind, self.with_output(min(self.usual.output, 1), exact=False)), usual)
            return Claim(rule.name, usual, limit, rule.window, offset, False, least, usual)
        most = max(self.amount(kind, self.most), usual)
        least = min(self.amount(kind, self.least), most) if self.endable else most
        floor = None
        since = 0
        if kind == SPEND:
            begins = spend.begins if spend is not None else 0
            floor, since = (spend.spent if spend is not None else 0) + unshipped, epoch_at(begins, rule.window, offset)
        return Claim(rule.name, most, limit, rule.window, offset, False, least, max(least, usual), floor, since)

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

    def smallest(self, kind: str) -> int:
        """What a short answer takes, however few tokens its prompt may have."""
        return self.amount(kind, self.with_input(1).least)

    def with_input(self, most: int) -> "Estimate":
        """Of a prompt that cannot have more tokens than that."""
        usages = []
        for each in (self.least, self.usual, self.most):
            usages.append(tokens(min(each.input, most), each.output, (each.images, each.audio_ms)))
        least, usual, hardest = usages
        return msgspec.structs.replace(self, least=least, usual=usual, most=hardest)

    def with_output(self, output: int, *, exact: bool = True) -> Usage:
        """`exact`: with the most of input that there can be."""
        of = self.most if exact else self.usual
        return tokens(of.input, output, (of.images, of.audio_ms))


def tokens(input: int, output: int, units: tuple[int, int] = (0, 0)) -> Usage:
    """One request's. `units`: the images and the milliseconds of audio that it takes along."""
    return Usage(input=input, output=output, priced_requests=1, images=units[0], audio_ms=units[1])


def estimate(
    request: Request, model: ModelRecord, targets: list[Target], learned: int | None, own: OwnKeysRecord | None = None
) -> Estimate:
    """A token is at least one byte, so a body's length bounds its input; four bytes are usual. Targets of which the
    project has keys of its `own` are charged as such."""
    size, task = len(request.body), request.task
    generates = isinstance(task, Conversation | Prompts)
    choices = request.n * (len(task.prompts) if isinstance(task, Prompts) else 1) if generates else 0
    bound = model.max_output or model.context_length
    asked = request.max_output_tokens
    largest = min(asked, bound) if asked and bound else asked or bound or LARGEST_OUTPUT
    usual = min(largest, USUAL_OUTPUT if learned is None else learned)
    hardest = size + (TEMPLATE_TOKENS + _image_tokens(task) if isinstance(task, Conversation) else 0)
    now = time.time()
    prices: list[Price] = []
    for target in targets:
        price = OWN_KEY if own is not None and own.of(target.upstream) else target.price.at(now)
        if price is not None and price not in prices:
            prices.append(price)
    units = sent(request)
    return Estimate(
        tokens(hardest, min(largest, LEAST_OUTPUT) * choices, units),
        tokens(size // BYTES_PER_TOKEN + 1, usual * choices, units),
        tokens(hardest, largest * choices, units),
        tuple(prices),
        generates and not request.own,
        bool(asked or bound),
        max(choices, 1),
        BATCH if request.batch else sold_tier(request.service_tier),
    )


def is_rendered(request: Request) -> bool:
    """Whether an engine of ours that renders its conversation counts all of its prompt, but for a few tokens."""
    task = request.task
    return isinstance(task, Conversation) and not (request.own or request.options or request.images)


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
        self._by_owner: dict[tuple[str, str], list[Rule]] = defaultdict(list)
        for limit in limits.values():
            self._by_owner[limit.scope, limit.id].append(Rule.of(limit))
        self._bound: dict[tuple[Caller, str], tuple[Rule, ...]] = {}
        self.of_providers = any(limit.scope == "provider" for limit in limits.values())
        """Whether some limit counts what is bought, which depends on where a request goes."""

    def for_request(self, caller: Caller, model: str) -> tuple[Rule, ...]:
        """Every limit of the caller and the model that counts this request, in the order of refusals."""
        if not self._by_owner:
            return ()
        asked = (caller, model)
        found = self._bound.get(asked)
        if found is None:
            if len(self._bound) >= MOST_BOUND:
                self._bound.clear()
            owners = (
                ("key", caller.key_id),
                ("project", caller.project_id),
                ("organization", caller.organization_id),
                ("model", model),
            )
            found = self._bound[asked] = tuple(self._of(owners, model))
        return found

    def for_provider(self, provider: str, model: str) -> tuple[Rule, ...]:
        """Limits of what is bought from a provider."""
        return tuple(self._of((("provider", provider),), model)) if self.of_providers else ()

    def budgets(self, caller: Caller, model: str, provider: str) -> tuple[str, ...]:
        """Names of those that a charge counts in."""
        found = self.for_request(caller, model) + self.for_provider(provider, model)
        return tuple(rule.name for rule in found if rule.kind == SPEND)

    def _of(self, owners: Iterable[tuple[str, str]], model: str) -> Iterable[Rule]:
        for owner in owners:
            for rule in self._by_owner.get(owner, ()):
                if rule.limit.model in (None, model):
                    yield rule


def _image_tokens(task: Conversation) -> int:
    found = 0
    for message in task.messages:
        for part in message.parts:
            if isinstance(part, Image) and part.url is not None:
                found += IMAGE_TOKENS
    return found


def _dearest(price: Price, usage: Usage, tier: str) -> int:
    """Whatever kind the tokens turn out to be, and wherever they are made."""
    regions, varies = _variants(price)
    most = max([price.charge(usage, tier, region) for region in regions])
    if not varies:
        return most
    written, output = usage.input, usage.output
    dear = Usage(
        cache_write=written,
        cache_write_1h=written,
        output=output,
        reasoning=output,
        priced_requests=1,
        images=usage.images,
        audio_ms=usage.audio_ms,
    )
    return max(most, *[price.charge(dear, tier, region) for region in regions])


@lru_cache(maxsize=1024)
def _variants(price: Price) -> tuple[tuple[str, ...], bool]:
    """Regions that have a price of their own, and whether some kinds of tokens have."""
    kinds = set(price.rates).union(*(each.factors for each in price.when))
    return ("", *{each.region for each in price.when if each.region}), bool(kinds & _DEARER)


_DEARER = {"cache_write", "cache_write_1h", "reasoning"}
