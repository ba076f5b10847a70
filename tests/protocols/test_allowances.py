"""Rate limits in each family's headers."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.allowance import Allowance
from tokenworks.protocols import codec
from tokenworks.protocols.allowances import anthropic_headers, duration

PER_MINUTE = Allowance("requests", 60, 59, 60, 12.5)
PER_DAY = Allowance("requests", 1000, 998, 86_400, 3723.2)
INPUT = Allowance("input_tokens", 5000, 4000, 60, 12.5)
OUTPUT = Allowance("output_tokens", 800, 0, 60, 0.0115)
TOKENS_OF_A_DAY = Allowance("tokens", 90_000, 100, 86_400, 3723.2)
BUDGET = Allowance("tokens", 10**6, 10**5, 0, None)


def told(name: str, *allowances: Allowance) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in codec(name).allowance_headers(allowances)}  # type: ignore[attr-defined]


def test_openai() -> None:
    assert told("openai_chat", PER_DAY, PER_MINUTE, INPUT, OUTPUT) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "12.5s",
        "x-ratelimit-limit-tokens": "800",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "12ms",
    }
    assert "x-ratelimit-reset-tokens" not in told("openai_responses", BUDGET)


def test_groq_tells_the_requests_of_a_day_and_the_tokens_of_a_minute() -> None:
    headers = told("groq_chat", PER_MINUTE, PER_DAY, TOKENS_OF_A_DAY, INPUT)
    assert headers["x-ratelimit-limit-requests"] == "1000"
    assert headers["x-ratelimit-reset-requests"] == "1h2m4s"
    assert headers["x-ratelimit-limit-tokens"] == "5000"


def test_fireworks() -> None:
    headers = told("fireworks_chat", PER_MINUTE, INPUT, OUTPUT)
    assert headers["x-ratelimit-limit-tokens-prompt"] == "5000"
    assert headers["x-ratelimit-remaining-tokens-generated"] == "0"
    assert headers["x-ratelimit-over-limit"] == "yes"
    assert told("fireworks_completions", PER_MINUTE)["x-ratelimit-over-limit"] == "no"


def test_anthropic() -> None:
    now = datetime(2026, 11, 25, 13, 0, 0, 500_000, UTC)
    headers = dict(anthropic_headers([PER_MINUTE, INPUT, OUTPUT, BUDGET], now))
    assert headers == {
        b"anthropic-ratelimit-requests-limit": b"60",
        b"anthropic-ratelimit-requests-remaining": b"59",
        b"anthropic-ratelimit-requests-reset": b"2026-11-25T13:00:13Z",
        b"anthropic-ratelimit-tokens-limit": b"800",
        b"anthropic-ratelimit-tokens-remaining": b"0",
        b"anthropic-ratelimit-tokens-reset": b"2026-11-25T13:00:01Z",
        b"anthropic-ratelimit-input-tokens-limit": b"5000",
        b"anthropic-ratelimit-input-tokens-remaining": b"4000",
        b"anthropic-ratelimit-input-tokens-reset": b"2026-11-25T13:00:13Z",
        b"anthropic-ratelimit-output-tokens-limit": b"800",
        b"anthropic-ratelimit-output-tokens-remaining": b"0",
        b"anthropic-ratelimit-output-tokens-reset": b"2026-11-25T13:00:01Z",
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0004, "1ms"), (1, "1s"), (59.9996, "1m0s"), (360, "6m0s"), (90_061, "25h1m1s"), (7.66, "7.66s")],
)
def test_durations_as_go_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 10**7))
def test_a_duration_is_never_earlier_than_the_truth(seconds: float) -> None:
    rest, total = duration(seconds).replace("ms", "l"), 0.0
    for unit, size in (("h", 3600.0), ("m", 60.0), ("s", 1.0), ("l", 0.001)):
        if unit in rest:
            number, _, rest = rest.partition(unit)
            total += float(number) * size
    assert total >= seconds - 1e-6
