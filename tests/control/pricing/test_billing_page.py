"""The worked examples of docs/billing.md, reckoned by what charges callers."""

import re
from pathlib import Path

import pytest

from tokenworks.control.pricing.entries import terms_of
from tokenworks.core.usage import Usage
from tokenworks.snapshot.records import PriceRecord

PAGE = (Path(__file__).parents[3] / "docs" / "billing.md").read_text()
EXAMPLES = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (\d+) \|$", PAGE, re.MULTILINE)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize(("attempt", "price", "charge"), EXAMPLES)
def test_an_example(attempt: str, price: str, charge: str) -> None:
    counts = dict(word.split("=") for word in attempt.split())
    tier = counts.pop("tier", "")
    rates, when = {}, []
    for word in price.split():
        if ":" not in word:
            rates.update([word.split("=")])
            continue
        condition, factors = word.split(":")
        name, value = condition.split("=")
        given = dict(pair.split("=") for pair in factors.split(",")) if "=" in factors else factors
        when.append({name: int(value) if name == "above" else value, "factors": given})
    terms = terms_of(rates, when)
    usage = Usage(**{kind: int(count) for kind, count in counts.items()})
    assert PriceRecord(terms.rates, terms.when).price.charge(usage, tier) == int(charge)
