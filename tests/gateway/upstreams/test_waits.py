from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.gateway.upstreams.waits import LONGEST, retry_after

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 31 Dec 2025 12:00:30 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "1e9"}, LONGEST),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "12ms"}, 0.012),
        ({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "1h"}, None),
        (
            {"anthropic-ratelimit-tokens-remaining": "0", "anthropic-ratelimit-tokens-reset": "2026-01-01T12:01:00Z"},
            60.0,
        ),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1767268810000"}, 10.0),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1767268810"}, 10.0),
    ],
)
def test_what_upstreams_say(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == (None if seconds is None else pytest.approx(seconds))


@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-remaining", "x-ratelimit-reset"]),
        st.text(max_size=12) | st.floats().map(str) | st.integers().map(str) | st.datetimes().map(str),
    )
)
def test_nothing_they_say_breaks_it(headers: dict[str, str]) -> None:
    wait = retry_after(headers, NOW)
    assert wait is None or wait >= 0
