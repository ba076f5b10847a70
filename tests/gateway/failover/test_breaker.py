"""The circuit breaker and the retry budget, by their own clocks."""

from tokenworks.core.errors import Fault, UpstreamBroken, UpstreamOverloaded
from tokenworks.core.request import Conversation
from tokenworks.core.target import RouteLimits, Target
from tokenworks.gateway.failover.breaker import Breaker
from tokenworks.gateway.failover.budget import LONGEST, RetryBudget, back_off
from tokenworks.gateway.failover.health import LEAST_SAMPLES, Health

TARGET = Target("u", "m", RouteLimits(), price=None)  # type: ignore[arg-type]


def test_failures_in_a_row_open_it_and_one_success_forgets_them() -> None:
    breaker = Breaker()
    assert not any(breaker.failed(float(n), 5) for n in range(4))
    breaker.succeeded(4.0)
    assert [breaker.failed(5.0 + n, 5) for n in range(5)] == [False, False, False, False, True]
    assert breaker.open
    assert not breaker.failed(11.0, 5)  # it opens once


def test_half_of_many_recent_failures_open_it_without_any_row() -> None:
    breaker = Breaker()
    opened = []
    for n in range(30):
        breaker.succeeded(n * 0.01)
        opened.append(breaker.failed(n * 0.01, 5))
    assert any(opened)
    old = Breaker()
    for n in range(30):
        old.succeeded(n * 20.0)
        assert not old.failed(n * 20.0 + 1, 5)  # two outcomes in twenty seconds are too few to judge by


def test_only_closing_lets_anybody_through_again() -> None:
    breaker = Breaker()
    for n in range(5):
        breaker.failed(float(n), 5)
    breaker.succeeded(6.0)  # an attempt from before: it says nothing about now
    assert breaker.open
    breaker.close()
    assert not breaker.open
    assert not breaker.failed(7.0, 5)


def test_retries_are_a_share_of_traffic() -> None:
    budget = RetryBudget()
    assert sum(budget.spend() for _ in range(100)) == 10  # an idle gateway has some in reserve
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
    assert 199 <= spent <= 201
    assert all(0 < back_off(n) <= LONGEST for n in range(50))


def test_health_pauses_avoids_and_learns() -> None:
    now = [100.0]
    health = Health(lambda: now[0])
    opened = []
    health.opened = lambda target, task: opened.append((target.upstream, task))
    health.failed(TARGET, UpstreamOverloaded("x", retry_after=7.0, fault=Fault.RATE_LIMIT), Conversation, 5)
    assert health.paused("u") == 7.0
    now[0] += 7.5
    assert health.paused("u") == 0.0
    health.failed(TARGET, UpstreamOverloaded("x", fault=Fault.QUOTA), Conversation, 5)
    assert health.is_avoided("u")
    health.answered(TARGET, 0.2)
    assert not health.is_avoided("u")
    assert health.first_token(TARGET, 0.95) is None
    for n in range(LEAST_SAMPLES * 5):
        health.answered(TARGET, n / 100)
    assert 0.9 <= (health.first_token(TARGET, 0.95) or 0) <= 1.0
    for _ in range(200):
        health.failed(TARGET, UpstreamBroken("x"), Conversation, 5)
    assert opened == [("u", Conversation)]
    assert health.is_open(TARGET)
    assert health.error_rate("u", "m") > 0.5
