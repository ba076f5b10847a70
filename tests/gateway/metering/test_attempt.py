"""How an attempt is settled, whichever way it ended."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.caller import Caller
from tokenworks.core.errors import Unavailable, UpstreamBroken
from tokenworks.core.events import Started, TextDelta, UsageReport
from tokenworks.core.price import Price, Tariff, When
from tokenworks.core.request import Prompts, Request
from tokenworks.core.target import RouteLimits, Target
from tokenworks.core.usage import Usage
from tokenworks.gateway.metering.attempt import Asked, Attempt, Meter
from tokenworks.journal.records import UsageRecord
from tokenworks.snapshot.records import UpstreamRecord
from tokenworks.telemetry.metrics import Metrics

counts = st.integers(0, 1000)


RATES = {"input": 1_000_000, "output": 2_000_000}
PRICE = Tariff((Price(RATES, [When({"input": Fraction(1, 2), "output": Fraction(1, 2)}, "batch")], id="p1"),))
COST = Tariff((Price({"input": 100_000, "output": 1_000_000}, [When({"input": Fraction(5)}, "flex")], id="c1"),))


class Records(list[Any]):
    """A journal that only remembers."""

    end = 0

    def flush(self) -> None: ...


def attempt(*, carried: int = 0, price: Tariff = PRICE, cost: Tariff = COST, **members: Any) -> Attempt:
    request = Request("m", Prompts(["x" * 400]), "openai_completions", body=b"x" * 400, **members)
    asked = Asked("req_1", 0, Caller("key", "project", "organization"), request)
    target = Target("u", "m-1", RouteLimits(), price, cost)
    meter = Meter(Records(), Metrics())  # type: ignore[arg-type]
    return meter.open(asked, 1, target, UpstreamRecord("u", "p", ("openai_completions",), "http://u"), carried=carried)


def see(one: Attempt, deltas: int, usage: Usage | None) -> None:
    for _ in range(deltas):
        one.observation.see(TextDelta("x"))
    if usage is not None:
        one.observation.see(UsageReport(usage))


def test_without_a_price_in_force_nothing_leaves() -> None:
    with pytest.raises(Unavailable, match="'m' has no price at this time"):
        attempt(price=Tariff((Price(RATES, starts=0, ends=1),)))


@pytest.mark.parametrize(("end", "outcome"), [("fail", "failed"), ("lose", "overtaken")])
def test_an_attempt_that_gave_no_answer_costs_the_caller_nothing_and_tells_what_it_took(end: str, outcome: str) -> None:
    one = attempt()
    see(one, 5, Usage(input=100, output=5))
    settled = one.fail(UpstreamBroken("cut")) if end == "fail" else one.lose()
    assert (settled.outcome, settled.usage, settled.charge) == (outcome, UsageRecord(), 0)
    assert settled.reported == UsageRecord(input=100, output=5)
    assert (settled.cost, settled.price, settled.cost_price) == (10 + 5, "", "c1")
    assert one.cancel() is settled


def test_a_caller_who_left_pays_for_what_was_generated_input_included() -> None:
    one = attempt()
    see(one, 7, None)
    settled = one.cancel()
    assert (settled.usage, settled.estimated) == (UsageRecord(input=100, output=7), True)
    assert settled.charge == 100 + 14


@given(counts, counts, counts, counts, st.integers(0, 500))
def test_an_answer_in_two_pieces_is_billed_as_one(
    plain: int, cached: int, written: int, output: int, carried: int
) -> None:
    one = attempt(carried=carried)
    reported = Usage(input=plain, cached_input=cached, cache_write=written, output=output)
    see(one, 1, reported)
    settled = one.complete()
    billed = settled.usage.usage()
    assert billed.output == output + carried
    assert billed.prompt == max(reported.prompt - carried, 0)
    assert all(getattr(billed, kind) <= getattr(reported, kind) for kind in ("input", "cached_input", "cache_write"))
    assert settled.reported == (UsageRecord.of(reported) if carried else None)


def test_a_tier_costs_what_the_upstream_answered_at_and_a_batch_what_we_sold() -> None:
    for asked, told, batch, charge, cost, tier in (
        ("flex", None, False, 120, 60, ""),
        ("flex", "default", False, 120, 20, "default"),
        ("auto", "flex", False, 120, 60, "flex"),
        ("priority", "flex", True, 60, 60, "flex"),
    ):
        one = attempt(service_tier=asked, batch=batch)
        one.observation.see(Started("id", "m-1", told))
        see(one, 1, Usage(input=100, output=10))
        settled = one.complete()
        assert (settled.charge, settled.cost, settled.tier) == (charge, cost, tier)


def test_a_fee_for_each_request_is_taken_once_and_only_for_an_answer() -> None:
    fee = Tariff((Price({**RATES, "priced_requests": 7_000_000}),))
    for failed in (False, True):
        one = attempt(price=fee, cost=fee)
        see(one, 1, Usage(input=1, output=1))
        settled = one.fail(UpstreamBroken("cut")) if failed else one.complete()
        assert settled.charge == (0 if failed else 10)
        assert settled.cost == 10
        assert settled.usage.priced_requests == (0 if failed else 1)


def test_usage_of_attempts_adds_up() -> None:
    assert Usage(1, 2, 3, 4, gpu_ms=5) + Usage(1, output=6, gpu_ms=7) == Usage(2, 2, 3, 10, gpu_ms=12)
    assert UsageRecord.of(Usage(1, 2, images=3)).usage() == Usage(1, 2, images=3)
