"""Money is integers: parsing refuses what it cannot hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.money import nano_to_usd, price_to_nano, usd_to_nano


@given(st.integers(-(10**18), 10**18))
def test_text_round_trip(nano: int) -> None:
    assert usd_to_nano(nano_to_usd(nano)) == nano


def test_published_prices_are_exact() -> None:
    assert price_to_nano("0.15") == 150_000_000
    assert price_to_nano(0.075) == 75_000_000
    assert nano_to_usd(1) == "0.000000001"
    assert nano_to_usd(-2_500_000_000) == "-2.5"


@pytest.mark.parametrize("text", ["abc", "nan", "inf", "0.0000000001", ""])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        usd_to_nano(text)


def test_negative_prices_are_refused() -> None:
    with pytest.raises(ValueError):
        price_to_nano("-1")
