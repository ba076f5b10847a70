"""One version of a price, and the form in which people state it."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.money import nano_to_usd, price_to_nano
from tokenworks.core.price import STATED, UNITS, Price, unclear
from tokenworks.snapshot.records import PriceRecord, WhenRecord

PRICE, COST = "price", "cost"
CONFIG = "config"
"""The source of what stands in the configuration file, and is changed only there."""
LARGEST_RATE = 10**18
_NAMES = {kind: (name, unit) for name, (kind, unit) in STATED.items()}
_ROOTS = ("input", "output", *UNITS)
"""A factor for these is one for every kind."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a price is for: on the side of what we charge a model, on that of what we pay `provider/model`."""

    side: str
    name: str
    organization_id: str = ""
    project_id: str = ""

    @property
    def is_everybodys(self) -> bool:
        return not self.organization_id


@dataclass(frozen=True, slots=True)
class Terms:
    """Rates by kind, and the factors that apply under conditions; see core.price."""

    rates: dict[str, int]
    when: tuple[WhenRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """In force from `starts` until `ends` (Unix seconds; None: for good)."""

    id: str
    subject: Subject
    terms: Terms
    starts: int
    ends: int | None
    source: str
    created_at: int

    def record(self) -> PriceRecord:
        return PriceRecord(
            self.terms.rates,
            self.terms.when,
            self.id,
            self.starts,
            self.ends,
            self.subject.organization_id,
            self.subject.project_id,
        )

    def in_force(self, at: int) -> bool:
        return self.starts <= at and (self.ends is None or at < self.ends)


def terms_of(rates: Mapping[str, Any], when: list[dict[str, Any]]) -> Terms:
    """What a person stated. InvalidRequest naming the field."""
    known = _rates(rates, "rates")
    if problem := unclear(known):
        raise InvalidRequest(f"rates: {problem}.", param="rates")
    conditions: list[WhenRecord] = []
    for number, each in enumerate(when):
        where = f"when[{number}]"
        record = _when(known, each, where)
        if any(_same(record, other) for other in conditions):
            raise InvalidRequest(f"{where}: another one has the same conditions; put both into one.", param=where)
        conditions.append(record)
    return Terms(known, tuple(conditions))


def _same(a: WhenRecord, b: WhenRecord) -> bool:
    return (a.tier, a.above, a.region) == (b.tier, b.above, b.region)


def _when(rates: dict[str, int], given: dict[str, Any], where: str) -> WhenRecord:
    tier, above, region = given.get("tier") or "", given.get("above") or 0, given.get("region") or ""
    if not (tier or above or region):
        raise InvalidRequest(f"{where}: states no condition; give tier, above or region.", param=where)
    if (given.get("factors") is None) == (given.get("rates") is None):
        raise InvalidRequest(f"{where}: give either factors or rates.", param=where)
    if given.get("rates") is not None:
        absolute = _rates(given["rates"], f"{where}.rates")
        return WhenRecord(factors_of(rates, absolute, f"{where}.rates"), tier, above, region)
    factors = given["factors"]
    if not isinstance(factors, dict):
        factors = dict.fromkeys(_ROOTS, factors)
    else:
        factors = {_kind(name, f"{where}.factors"): value for name, value in factors.items()}
    return WhenRecord({kind: _factor(value, where) for kind, value in factors.items()}, tier, above, region)


def factors_of(base: dict[str, int], rates: Mapping[str, int], where: str) -> dict[str, tuple[int, int]]:
    """Absolute rates as exact factors of the base's."""
    whole = Price(base)
    factors: dict[str, tuple[int, int]] = {}
    for kind, rate in rates.items():
        usual = whole.rate(kind)
        if not usual and rate:
            raise InvalidRequest(
                f"{where}: {_NAMES[kind][0]} is free without the condition, so no factor makes it this rate; "
                "state its usual rate.",
                param=where,
            )
        factor = Fraction(rate) / usual if usual else Fraction(1)
        base.setdefault(kind, int(usual))
        factors[kind] = factor.numerator, factor.denominator
    return factors


def _rates(given: Mapping[str, Any], where: str) -> dict[str, int]:
    return {_kind(name, where): _nano(value, f"{where}.{name}") * STATED[name][1] for name, value in given.items()}


def _kind(name: str, where: str) -> str:
    if name not in STATED:
        raise InvalidRequest(f"{where}: there is no kind {name!r}; the kinds are {', '.join(STATED)}.", param=where)
    return STATED[name][0]


def _nano(value: Any, where: str) -> int:
    try:
        nano = price_to_nano(_text(value))
    except ValueError as error:
        raise InvalidRequest(f"{where}: {error}.", param=where) from None
    if nano > LARGEST_RATE // 10**6:
        raise InvalidRequest(f"{where}: {value} USD is out of range.", param=where)
    return nano


def _factor(value: Any, where: str) -> tuple[int, int]:
    try:
        factor = Fraction(_text(value))
    except (ValueError, ZeroDivisionError):
        raise InvalidRequest(f"{where}: {value!r} is no factor; write 0.5, 2 or 1/3.", param=where) from None
    if not 0 <= factor <= 1000 or factor.denominator > 10**12:
        raise InvalidRequest(f"{where}: the factor {value} is out of range; from 0 to 1000.", param=where)
    return factor.numerator, factor.denominator


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal) or len(str(value)) > 40:
        raise ValueError(f"{value!r} is no number")
    return str(value)


def stated_rates(rates: Mapping[str, int]) -> dict[str, str]:
    """USD as exact decimal text, by the names that people use."""
    return {name: nano_to_usd(rates[kind] // unit) for name, (kind, unit) in STATED.items() if kind in rates}


def stated_when(when: tuple[WhenRecord, ...]) -> list[dict[str, Any]]:
    return [
        {
            "tier": each.tier or None,
            "above": each.above or None,
            "region": each.region or None,
            "factors": {_NAMES[kind][0]: str(Fraction(*factor)) for kind, factor in each.factors.items()},
        }
        for each in when
    ]
