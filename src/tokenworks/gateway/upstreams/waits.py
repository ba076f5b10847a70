"""For how long an upstream that refused wants to be left alone, from the headers of its answer. Pure."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST = 86_400.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_KINDS = ("requests", "tokens", "input-tokens", "output-tokens", "tokens-prompt", "tokens-generated")


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds; None when nothing says it.

    `Retry-After` (seconds or a date) and its form in milliseconds come first; then the time at which those of the
    limits are reset of which nothing remains, in the headers of the OpenAI-like and in Anthropic's.
    """
    now = now or datetime.now(UTC)
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    if (told := headers.get("retry-after")) is not None:
        return _wait(told, now)
    waits = [
        wait
        for prefix in ("x-ratelimit", "anthropic-ratelimit")
        for kind in _KINDS
        if (wait := _reset(headers, prefix, kind, now)) is not None
    ]
    plain = headers.get("x-ratelimit-reset") if headers.get("x-ratelimit-remaining") == "0" else None
    if plain is not None and (wait := _wait(plain, now)) is not None:
        waits.append(wait)
    return max(waits, default=None)


def _reset(headers: Mapping[str, str], prefix: str, kind: str, now: datetime) -> float | None:
    for remaining, reset in (
        (f"{prefix}-remaining-{kind}", f"{prefix}-reset-{kind}"),
        (f"{prefix}-{kind}-remaining", f"{prefix}-{kind}-reset"),
    ):
        if reset in headers and _number(headers.get(remaining)) == 0:
            return _wait(headers[reset], now)
    return None


def _wait(text: str, now: datetime) -> float | None:
    """Seconds, "6m0s", a date of any of three kinds, or Unix time in seconds or milliseconds."""
    number = _number(text)
    if number is not None:
        if number > 1e11:
            number /= 1000
        return _bounded(number - now.timestamp() if number > 1e9 else number)
    parts = _PART.findall(text)
    if parts and "".join(amount + unit for amount, unit in parts) == text.strip():
        return _bounded(sum(float(amount) * _UNITS[unit] for amount, unit in parts))
    try:
        when = datetime.fromisoformat(text) if text[:4].isdigit() else parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return _bounded(((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds())


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return None if number is None or number != number or number < 0 else number


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST)
