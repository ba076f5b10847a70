"""The lines of a bill: what a group of attempts was charged, by kind.

Each attempt is charged as a whole, rounded half up to a nano-dollar once. The lines of a group divide exactly that
amount: in proportion to quantity times rate, whole nano-dollars, the rest to the largest remainders. Where the sum of
quantity times rate is the charge (but for the rounding of each attempt) a line shows its rate; where the group was
charged under several conditions, as beyond a length of prompt, it shows none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol

from tokenworks.core.money import nano_to_usd
from tokenworks.core.price import BATCH, UNITS_PER_RATE, Price
from tokenworks.core.usage import KINDS

PARTS = {
    "input": ("input_audio", "input_image"),
    "cache_write": ("cache_write_1h",),
    "output": ("reasoning", "output_audio", "output_image"),
}
"""A kind's parts have lines of their own; its line is the rest."""
WHOLE = "usage"
"""The kind of the one line of a group whose price is not known any more."""


class Rates(Protocol):
    def __call__(self, version: str) -> Price | None:
        """The version of a price that usage was charged with."""
        ...


@dataclass(frozen=True, slots=True)
class Group:
    """Attempts of one month that differ in nothing that a line tells."""

    month: str
    project_id: str
    key_id: str
    model: str
    price: str
    batch: bool
    tier: str
    requests: int
    charge: int
    counts: Mapping[str, int]

    @property
    def identity(self) -> tuple[Any, ...]:
        return (self.month, self.project_id, self.key_id, self.model, self.price, self.batch, self.tier)

    def less(self, other: "Group") -> "Group":
        counts = {kind: self.counts.get(kind, 0) - other.counts.get(kind, 0) for kind in KINDS}
        return replace(self, requests=self.requests - other.requests, charge=self.charge - other.charge, counts=counts)


@dataclass(frozen=True, slots=True)
class Line:
    kind: str
    quantity: int
    unit: str
    rate: Fraction | None
    """Nano-dollars for a million units."""
    amount: int

    def shown(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "quantity": self.quantity,
            "unit": self.unit,
            "usd_per_million": None if self.rate is None else _usd(self.rate),
            "amount_nano_usd": self.amount,
            "amount_usd": nano_to_usd(self.amount),
        }


def lines(group: Group, price: Price | None) -> list[Line]:
    """They sum to the group's charge."""
    counts = _disjoint(group.counts)
    tier = BATCH if group.batch else group.tier
    rates = {kind: price.rate(kind, tier) if price is not None else Fraction(0) for kind in counts}
    exact = {kind: counts[kind] * rate / UNITS_PER_RATE for kind, rate in rates.items()}
    total = sum(exact.values(), Fraction(0))
    if not total:
        return [Line(WHOLE, group.requests, "request", None, group.charge)] if group.charge else []
    stated = abs(total - group.charge) * 2 <= group.requests
    amounts = _divide(group.charge, exact, total)
    return [
        Line(kind, counts[kind], _unit(kind), rates[kind] if stated else None, amounts[kind])
        for kind in counts
        if counts[kind] and (amounts[kind] or rates[kind])
    ]


def _disjoint(counts: Mapping[str, int]) -> dict[str, int]:
    """An upstream's parts may add up to more than the whole; what is beyond it was not charged."""
    found = {}
    for kind in KINDS:
        if any(kind in parts for parts in PARTS.values()):
            continue
        left = counts.get(kind, 0)
        for part in PARTS.get(kind, ()):
            found[part] = min(counts.get(part, 0), left)
            left -= found[part]
        found[kind] = left
    return {kind: found[kind] for kind in KINDS}


def _divide(amount: int, exact: Mapping[str, Fraction], total: Fraction) -> dict[str, int]:
    shares = {kind: value * amount / total for kind, value in exact.items()}
    whole = {kind: share.numerator // share.denominator for kind, share in shares.items()}
    rest = amount - sum(whole.values())
    for kind in sorted(shares, key=lambda kind: whole[kind] - shares[kind])[:rest]:
        whole[kind] += 1
    return whole


def _unit(kind: str) -> str:
    units = {"priced_requests": "request", "audio_ms": "millisecond", "images": "image", "gpu_ms": "millisecond"}
    return units.get(kind, "token")


def _usd(rate: Fraction) -> str:
    """Exact where that is a decimal of a nano-dollar, otherwise with a sign that it is rounded."""
    nano, rest = divmod(rate.numerator, rate.denominator)
    return nano_to_usd(nano) if not rest else f"~{nano_to_usd(round(rate))}"
