"""What attempts are charged: rates by kind, multiplied under conditions, rounded once.

A rate is nano-dollars for a million units of a kind (a million tokens, requests, milliseconds, images). A kind without
a rate of its own is charged as the one that it is a part of or a variety of: cached input as input, reasoning as
output. Units that no rate names are free. All arithmetic is in integers; a multiplier is an exact fraction.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from tokenworks.core.usage import KINDS, Usage

UNITS_PER_RATE = 1_000_000

PARENTS = {
    "cached_input": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "input_audio": "input",
    "input_image": "input",
    "reasoning": "output",
    "output_audio": "output",
    "output_image": "output",
}
"""A kind without a rate of its own is charged as its parent."""
UNITS = ("priced_requests", "audio_ms", "images", "gpu_ms")
"""Kinds that are not tokens."""

STATED = {
    **{kind: (kind, 1) for kind in ("input", "output", *PARENTS)},
    "request": ("priced_requests", 1_000_000),
    "audio_second": ("audio_ms", 1_000),
    "image": ("images", 1_000_000),
    "gpu_second": ("gpu_ms", 1_000),
}
"""How people state rates: USD per million tokens, per request, per second, per image. The kind, and what makes the
stated nano-dollars those of a million units."""


_READ = {"priced_requests": (1, "each"), "images": (1, "each"), "audio_ms": (1_000, "/s"), "gpu_ms": (1_000, "/s")}
"""How people read a kind that is no token: how many make one, and what a rate is then for."""


def as_read(kind: str, quantity: int, usd_per_million: str) -> tuple[str, str]:
    """A line's quantity and rate for people: seconds and pieces at the price of one, tokens at that of a million (/M).
    A rate that is rounded begins with ~."""
    if kind not in _READ:
        return f"{quantity:,}", f"{usd_per_million} /M"
    many, unit = _READ[kind]
    rate = Decimal(usd_per_million.removeprefix("~")) * many / UNITS_PER_RATE
    rounded = "~" if usd_per_million.startswith("~") else ""
    return f"{(Decimal(quantity) / many).normalize():,f}", f"{rounded}{rate.normalize():f} {unit}"


def unclear(rates: Mapping[str, int]) -> str | None:
    """Why these rates are no complete price: what is not stated must not be taken for free."""
    if not rates:
        return "states no rate; 0 is one too"
    tokens = {kind for kind in rates if kind not in UNITS}
    missing = [kind for kind in ("input", "output") if tokens and kind not in rates]
    return f"states no rate for {missing[0]}; write 0 if that is free" if missing else None


def uncounted(rates: Mapping[str, int]) -> str | None:
    """Why nobody can charge these rates where others answer."""
    if rates.get("gpu_ms"):
        return "states gpu_second, which only engines of ours tell: what others compute is never counted"
    return None


BATCH = "batch"
BYOK = "byok"
"""The version of the price of attempts that a caller's own provider account pays for: nothing."""
SHADOW = "shadow"
"""The same of copies of requests, which nobody asked for: their operator pays what they cost."""
_STANDARD = frozenset({"", "auto", "default", "standard", "on_demand", "standard_only"})
"""What hosts call the tier that nobody has to ask for."""


def sold_tier(name: str | None) -> str:
    """A service tier as prices know it; "" is the standard one."""
    return "" if name is None or name in _STANDARD else name


@dataclass(frozen=True, slots=True)
class When:
    """Factors that apply while every stated condition holds: the service tier, more than `above` tokens of prompt,
    the region.

    Factors of several that hold are multiplied. One with more conditions replaces those whose conditions it includes,
    and of several thresholds the highest that was passed counts. A kind that it does not name has its parent's factor.
    """

    factors: Mapping[str, Fraction]
    tier: str = ""
    above: int = 0
    region: str = ""

    @property
    def conditions(self) -> frozenset[str]:
        return frozenset(name for name in ("tier", "above", "region") if getattr(self, name))

    def holds(self, tier: str, prompt: int, region: str) -> bool:
        return self.tier in ("", tier) and self.region in ("", region) and (not self.above or prompt > self.above)

    def replaces(self, other: "When") -> bool:
        return self.conditions > other.conditions or (self.conditions == other.conditions and self.above > other.above)

    def factor(self, kind: str) -> Fraction | None:
        named: str | None = kind
        while named is not None and named not in self.factors:
            named = PARENTS.get(named)
        return None if named is None else self.factors[named]


@dataclass(frozen=True, slots=True)
class _Cell:
    """Integer rates under one set of conditions, over one denominator; parts hold what they cost beyond the whole."""

    denominator: int
    input: int
    cached_input: int
    cache_write: int
    output: int
    input_parts: tuple[tuple[str, int], ...]
    cache_write_1h: int
    output_parts: tuple[tuple[str, int], ...]
    units: tuple[tuple[str, int], ...]


class Price:
    """One version, in force from `starts` until `ends` (Unix seconds; None: for good). Never changed once made."""

    __slots__ = ("_cells", "_regions", "_thresholds", "_tiers", "ends", "id", "rates", "starts", "when")

    def __init__(
        self,
        rates: Mapping[str, int],
        when: Iterable[When] = (),
        *,
        id: str = "",
        starts: int = 0,
        ends: int | None = None,
    ) -> None:
        self.id = id
        self.starts = starts
        self.ends = ends
        self.rates = rates
        self.when = tuple(when)
        self._tiers = frozenset(each.tier for each in self.when)
        self._regions = frozenset(each.region for each in self.when)
        self._thresholds = sorted({each.above for each in self.when if each.above})
        self._cells: dict[tuple[str, str, int], _Cell] = {}

    def charge(self, usage: Usage, tier: str = "", region: str = "") -> int:
        """Nano-dollars, rounded half up once."""
        band = bisect_left(self._thresholds, usage.prompt) if self._thresholds else 0
        key = (tier if tier in self._tiers else "", region if region in self._regions else "", band)
        cell = self._cells.get(key) or self._compile(key)
        total = usage.input * cell.input + usage.output * cell.output
        if usage.cached_input:
            total += usage.cached_input * cell.cached_input
        if usage.cache_write:
            total += usage.cache_write * cell.cache_write
            if usage.cache_write_1h:
                total += min(usage.cache_write_1h, usage.cache_write) * cell.cache_write_1h
        if cell.input_parts:
            total += _parts(usage, usage.input, cell.input_parts)
        if cell.output_parts:
            total += _parts(usage, usage.output, cell.output_parts)
        for kind, rate in cell.units:
            total += getattr(usage, kind) * rate
        return (2 * total + cell.denominator) // (2 * cell.denominator)

    def rate(self, kind: str, tier: str = "", prompt: int = 0, region: str = "") -> Fraction:
        """Nano-dollars for a million units of one kind, under these conditions."""
        named: str | None = kind
        while named is not None and named not in self.rates:
            named = PARENTS.get(named)
        if named is None:
            return Fraction(0)
        held = [each for each in self.when if each.factor(named) is not None and each.holds(tier, prompt, region)]
        rate = Fraction(self.rates[named])
        for each in held:
            if not any(other.replaces(each) for other in held):
                rate *= each.factor(named) or 0
        return rate

    def _compile(self, key: tuple[str, str, int]) -> _Cell:
        tier, region, band = key
        prompt = self._thresholds[band - 1] + 1 if band else 0
        exact = {kind: self.rate(kind, tier, prompt, region) / UNITS_PER_RATE for kind in KINDS}
        denominator = math.lcm(*(rate.denominator for rate in exact.values()))
        whole = {kind: int(rate * denominator) for kind, rate in exact.items()}

        def parts(of: str) -> tuple[tuple[str, int], ...]:
            return tuple((kind, whole[kind] - whole[of]) for kind in _PARTS[of] if whole[kind] != whole[of])

        cell = self._cells[key] = _Cell(
            denominator,
            whole["input"],
            whole["cached_input"],
            whole["cache_write"],
            whole["output"],
            parts("input"),
            whole["cache_write_1h"] - whole["cache_write"],
            parts("output"),
            tuple((kind, whole[kind]) for kind in UNITS if whole[kind]),
        )
        return cell


OWN_KEY = Price({"input": 0, "output": 0}, id=BYOK)
"""Of attempts with a key that the caller's project brought."""
_PARTS = {
    "input": ("input_audio", "input_image"),
    "output": ("reasoning", "output_audio", "output_image"),
}


def _parts(usage: Usage, whole: int, parts: tuple[tuple[str, int], ...]) -> int:
    """What the parts of a kind cost more than the whole; an upstream's parts may not add up to more than it."""
    total = 0
    for kind, difference in parts:
        taken = min(getattr(usage, kind), whole)
        whole -= taken
        total += taken * difference
    return total


@dataclass(frozen=True, slots=True)
class Tariff:
    """One price over time, versions in the order of their dates; of several in force the latest applies. Where none is,
    `otherwise` does: beneath an organization's own price there is everybody's."""

    versions: tuple[Price, ...] = ()
    otherwise: "Tariff | None" = None

    def at(self, seconds: float) -> Price | None:
        for version in reversed(self.versions):
            if version.starts <= seconds and (version.ends is None or seconds < version.ends):
                return version
        return self.otherwise.at(seconds) if self.otherwise is not None else None
