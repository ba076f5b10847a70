"""Money is integers: parsing refuses what it cannot hold, charging rounds once."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.money import NANO_PER_USD, Price, nano_to_usd, price_per_million, usd_to_nano

tokens = st.integers(0, 10**9)
prices = st.integers(0, 10**12)


@given(st.integers(-(10**18), 10**18))
def test_text_round_trip(nano: int) -> None:
    assert usd_to_nano(nano_to_usd(nano)) == nano


def test_published_prices_are_exact() -> None:
    assert price_per_million("0.15") == 150_000_000
    assert price_per_million(0.075) == 75_000_000
    assert nano_to_usd(1) == "0.000000001"
    assert nano_to_usd(-2_500_000_000) == "-2.5"


@pytest.mark.parametrize("text", ["abc", "nan", "inf", "0.0000000001", ""])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        usd_to_nano(text)


def test_negative_prices_are_refused() -> None:
    with pytest.raises(ValueError):
        price_per_million("-1")


@given(tokens, tokens, tokens, tokens, prices, prices, prices, prices)
def test_a_charge_is_the_exact_sum_rounded_once(
    plain: int, cached: int, written: int, output: int, a: int, b: int, c: int, d: int
) -> None:
    charge = Price(a, b, c, d).charge(input=plain, cached_input=cached, cache_write=written, output=output)
    exact = Fraction(plain * a + cached * b + output * c + written * d, 1_000_000)
    assert abs(charge - exact) <= Fraction(1, 2)
    assert charge <= 4 * 10**9 * 10**12 // 10**6 + 1
    assert NANO_PER_USD == 10**9
