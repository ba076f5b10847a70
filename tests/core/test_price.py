"""Charges are exact, rounded once, additive, monotone, and never negative, under whatever conditions."""

from decimal import Context, Decimal, Inexact, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.price import PARENTS, STATED, UNITS, Price, Tariff, When, as_read, unclear
from tokenworks.core.usage import KINDS, Usage

TIERS = ("", "batch", "flex", "priority")
THRESHOLDS = (0, 200, 272)
MEMBERS = ("input", "cached_input", "cache_write", "output")
PARTS = {
    "cache_write_1h": "cache_write",
    "input_audio": "input",
    "input_image": "input",
    "reasoning": "output",
    "output_audio": "output",
    "output_image": "output",
}

rates = st.fixed_dictionaries(
    {"input": st.integers(0, 10**12), "output": st.integers(0, 10**12)},
    optional={kind: st.integers(0, 10**12) for kind in (*PARENTS, *UNITS)},
)
factor = st.fractions(1, 9, max_denominator=1000)
whens = st.builds(
    When,
    st.dictionaries(st.sampled_from(KINDS), factor, min_size=1),
    st.sampled_from(TIERS),
    st.sampled_from(THRESHOLDS),
    st.sampled_from(("", "eu")),
).filter(lambda when: when.conditions)
prices = st.builds(
    Price, rates, st.lists(whens, max_size=5, unique_by=lambda when: (when.tier, when.above, when.region))
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Counts by disjoint kinds, put together."""
    plain = {kind: draw(st.integers(0, 400)) for kind in KINDS}
    for part, whole in PARTS.items():
        plain[whole] += plain[part]
    return Usage(**plain)


def exactly(price: Price, usage: Usage, tier: str, region: str) -> Fraction:
    """The definition, word by word: each disjoint kind times its own rate."""
    disjoint = {kind: getattr(usage, kind) for kind in KINDS}
    for part, whole in PARTS.items():
        disjoint[whole] -= disjoint[part]
    at = (tier, usage.prompt, region)
    return sum((disjoint[kind] * price.rate(kind, *at) for kind in KINDS), Fraction(0)) / 1_000_000


@given(prices, usages(), st.sampled_from(TIERS), st.sampled_from(("", "eu", "us")))
def test_a_charge_is_the_exact_sum_rounded_once(price: Price, usage: Usage, tier: str, region: str) -> None:
    exact = exactly(price, usage, tier, region)
    charge = price.charge(usage, tier, region)
    assert charge == (exact + Fraction(1, 2)).__floor__() >= 0


@given(rates, usages())
def test_a_charge_is_what_decimal_arithmetic_says(given_rates: dict[str, int], usage: Usage) -> None:
    price = Price(given_rates)
    disjoint = {kind: getattr(usage, kind) for kind in KINDS}
    for part, whole in PARTS.items():
        disjoint[whole] -= disjoint[part]
    with localcontext(Context(prec=60, traps=[Inexact])):
        total = sum(Decimal(count) * Decimal(int(price.rate(kind))) for kind, count in disjoint.items())
        exact = total / Decimal(1_000_000)
    assert price.charge(usage) == int(exact.to_integral_value("ROUND_HALF_UP"))


@given(rates, st.lists(usages(), max_size=5))
def test_charges_add_up_to_within_their_roundings(given_rates: dict[str, int], parts: list[Usage]) -> None:
    price = Price(given_rates)
    together = price.charge(sum(parts, Usage()))
    assert abs(together - sum(price.charge(part) for part in parts)) * 2 <= len(parts) + 1


@given(prices, usages(), usages(), st.sampled_from(TIERS))
def test_more_never_costs_less(price: Price, usage: Usage, more: Usage, tier: str) -> None:
    """Factors are at least 1 here: a host that gives rebates for longer prompts may make more cost less."""
    assert price.charge(usage, tier) <= price.charge(usage + more, tier)


def test_a_kind_without_a_rate_is_charged_as_its_parent() -> None:
    price = Price({"input": 2_000_000, "output": 10_000_000})
    assert price.charge(Usage(input=1, cached_input=1, cache_write=2, cache_write_1h=1, input_audio=1)) == 8
    assert price.charge(Usage(output=3, reasoning=1, output_audio=1, output_image=1)) == 30
    assert Price({"input": 0, "output": 0}).charge(Usage(gpu_ms=10**9, images=5, priced_requests=1)) == 0


def test_the_parts_of_a_lying_report_never_exceed_the_whole() -> None:
    price = Price({"input": 0, "output": 1_000_000, "reasoning": 3_000_000, "output_audio": 0})
    assert price.charge(Usage(output=10, reasoning=50, output_audio=50)) == 30


def test_conditions_multiply_unless_their_combination_is_stated() -> None:
    batch = When({"input": Fraction(1, 2), "output": Fraction(1, 2)}, tier="batch")
    long = When({"input": Fraction(2), "output": Fraction(3, 2)}, above=272_000)
    region = When({"input": Fraction(11, 10), "output": Fraction(11, 10)}, region="eu")
    price = Price({"input": 2_000_000, "cached_input": 200_000, "output": 10_000_000}, [batch, long, region])
    assert price.rate("input", "batch", 272_001) == 2_000_000
    assert price.rate("cached_input", "batch", 272_001) == 200_000
    assert price.rate("output", "batch", 272_001, "eu") == Fraction(33, 4) * 1_000_000
    assert price.rate("input", "batch", 272_000) == 1_000_000  # not above
    assert price.rate("input", "flex", 272_001) == 4_000_000  # no such tier
    both = When({"input": Fraction(3)}, tier="batch", above=272_000)
    stated = Price(price.rates, [batch, long, region, both])
    assert stated.rate("input", "batch", 272_001) == 6_000_000
    assert stated.rate("output", "batch", 272_001) == Fraction(15, 2) * 1_000_000
    higher = Price(price.rates, [long, When({"input": Fraction(5)}, above=500_000)])
    assert higher.rate("input", "", 500_001) == 10_000_000


def test_one_rounding_half_up() -> None:
    assert Price({"input": 500_000, "output": 0}).charge(Usage(input=1)) == 1
    assert Price({"input": 499_999, "output": 0}).charge(Usage(input=1)) == 0
    assert Price({"input": 400_000, "output": 400_000}).charge(Usage(input=1, output=1)) == 1


def test_the_version_in_force() -> None:
    old, new = Price({}, id="old", starts=0, ends=100), Price({}, id="new", starts=100, ends=None)
    special = Price({}, id="special", starts=50, ends=120)
    everybody = Tariff((old, new))
    own = Tariff((special,), everybody)

    def at(tariff: Tariff, seconds: float) -> str:
        version = tariff.at(seconds)
        return version.id if version else ""

    assert [at(everybody, seconds) for seconds in (-1, 0, 99.9, 100, 10**10)] == ["", "old", "old", "new", "new"]
    assert [at(own, seconds) for seconds in (49, 50, 119, 120)] == ["old", "special", "special", "new"]
    assert at(Tariff((old,)), 100) == ""


def test_a_price_states_what_it_is_for() -> None:
    assert unclear({}) and unclear({"input": 1}) and unclear({"output": 1, "gpu_ms": 1})
    assert unclear({"input": 0, "output": 0}) is None
    assert unclear({"gpu_ms": 5}) is None
    assert {kind for kind, _ in STATED.values()} == set(KINDS)


@pytest.mark.parametrize(
    "kind, quantity, rate, expected",
    [
        ("input", 8_000_000, "0.15", ("8,000,000", "0.15 /M")),
        ("images", 120, "2000", ("120", "0.002 each")),
        ("priced_requests", 1_000, "3000000", ("1,000", "3 each")),
        ("audio_ms", 61_500, "0.1", ("61.5", "0.0001 /s")),
        ("gpu_ms", 3_600_000, "~1.5", ("3,600", "~0.0015 /s")),
        ("gpu_ms", 0, "0", ("0", "0 /s")),
    ],
)
def test_what_is_no_token_is_read_as_it_is_sold(kind: str, quantity: int, rate: str, expected: tuple[str, str]) -> None:
    assert as_read(kind, quantity, rate) == expected
