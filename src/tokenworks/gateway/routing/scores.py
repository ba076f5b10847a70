"""Which of several targets is the best one: the lower its score, the better.

Each target is compared with the best of the candidates in price, time to first token and tokens/s, as ratios of at
least 1; the way of sorting weighs them, and failures add a penalty that grows quickly. What was not seen yet counts as
the best that was seen, so newcomers are tried.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenworks.core.price import Tariff
from tokenworks.core.routing import BALANCED, LATENCY, PRICE, THROUGHPUT
from tokenworks.gateway.routing.observed import Seen

WEIGHTS: Mapping[str, tuple[float, float, float]] = {
    PRICE: (1.0, 0.01, 0.01),
    LATENCY: (0.05, 1.0, 0.05),
    THROUGHPUT: (0.05, 0.05, 1.0),
    BALANCED: (0.6, 0.25, 0.15),
}
"""Of price, time to first token and throughput, by the way of sorting."""
TOLERATED = 0.05
"""Share of failures that is nothing to speak of."""
PENALTY = 10.0
USUAL_OUTPUT = 200.0
"""Tokens of an answer of which nothing is known."""
MARGIN = 0.85
"""The one that was first stays so until another scores below this share of it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """`price` of this request in nano-dollars, None where nobody stated one; `error_rate` from 0 to 1."""

    price: float | None
    first_token: float | None
    throughput: float | None
    error_rate: float


def candidate(
    cost: Tariff, seen: Seen | None, error_rate: float, prompt: float, output: float, now: float
) -> Candidate:
    """The effective price: at the share of cached input that was seen."""
    price: float | None = None
    if (version := cost.at(now)) is not None:
        rates = version.rates
        input_rate = rates.get("input", 0)
        cached = prompt * (seen.cached_share if seen else 0.0)
        price = (prompt - cached) * input_rate + cached * rates.get("cached_input", input_rate)
        price = (price + output * rates.get("output", 0)) / 1e6 + rates.get("priced_requests", 0) / 1e6
    return Candidate(price, seen.first_token if seen else None, seen.throughput if seen else None, error_rate)


def scores(candidates: Sequence[Candidate], sort: str) -> list[float]:
    by_price, by_first_token, by_throughput = WEIGHTS[sort]
    cheapest = min((each.price for each in candidates if each.price is not None), default=None)
    dearest = max((each.price for each in candidates if each.price is not None), default=None)
    quickest = min((each.first_token for each in candidates if each.first_token), default=None)
    fastest = max((each.throughput for each in candidates if each.throughput), default=None)
    found = []
    for each in candidates:
        # A price that nobody stated is a little worse than the dearest.
        stated = each.price is not None
        score = by_price * (_ratio(each.price if stated else dearest, cheapest) + (0.0 if stated else 0.01))
        score += by_first_token * (each.first_token / quickest if each.first_token and quickest else 1.0)
        score += by_throughput * (fastest / each.throughput if each.throughput and fastest else 1.0)
        beyond = each.error_rate - TOLERATED
        found.append(score + (PENALTY * beyond * (1.0 + beyond) if beyond > 0 else 0.0))
    return found


def _ratio(price: float | None, cheapest: float | None) -> float:
    """To the cheapest; something beside nothing is as much dearer as it costs in thousandths of a dollar."""
    if price is None or cheapest is None:
        return 1.0
    return price / cheapest if cheapest else 1.0 + price / 1e6
