"""Rate limits in headers, in the form of each family. Of several limits of one kind the tightest is told."""

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from tokenworks.core.allowance import Allowance

Headers = list[tuple[bytes, bytes]]

REQUESTS = ("requests",)
TOKENS = ("tokens", "input_tokens", "uncached_input_tokens", "output_tokens")
"""The tightest of all that count tokens, where a family tells of one only."""
INPUT = ("input_tokens", "uncached_input_tokens")
OUTPUT = ("output_tokens",)
MINUTE, DAY = 60, 86_400


def openai_headers(allowances: Sequence[Allowance]) -> Headers:
    return _ratelimit(("requests", _tightest(allowances, REQUESTS)), ("tokens", _tightest(allowances, TOKENS)))


def groq_headers(allowances: Sequence[Allowance]) -> Headers:
    """Requests are those of a day and tokens those of a minute, where there are such limits."""
    requests = _tightest(allowances, REQUESTS, window=DAY)
    return _ratelimit(("requests", requests), ("tokens", _tightest(allowances, TOKENS, window=MINUTE)))


def fireworks_headers(allowances: Sequence[Allowance]) -> Headers:
    told = {
        "requests": _tightest(allowances, REQUESTS),
        "tokens-prompt": _tightest(allowances, INPUT),
        "tokens-generated": _tightest(allowances, OUTPUT),
    }
    headers = _ratelimit(*told.items())
    if headers:
        over = any(allowance is not None and not allowance.remaining for allowance in told.values())
        headers.append((b"x-ratelimit-over-limit", b"yes" if over else b"no"))
    return headers


def anthropic_headers(allowances: Sequence[Allowance], now: datetime | None = None) -> Headers:
    """Resets are moments; `now` is the clock's unless given."""
    now = now or datetime.now(UTC)
    headers: Headers = []
    for name, kinds in (("requests", REQUESTS), ("tokens", TOKENS), ("input-tokens", INPUT), ("output-tokens", OUTPUT)):
        if (allowance := _tightest(allowances, kinds)) is not None:
            told = {"limit": str(allowance.limit), "remaining": str(allowance.remaining)}
            if allowance.resets_in is not None:
                moment = now + timedelta(seconds=allowance.resets_in, microseconds=999_999)
                told["reset"] = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
            headers += [(f"anthropic-ratelimit-{name}-{word}".encode(), value.encode()) for word, value in told.items()]
    return headers


def _ratelimit(*told: tuple[str, Allowance | None]) -> Headers:
    headers: Headers = []
    for name, allowance in told:
        if allowance is None:
            continue
        headers.append((f"x-ratelimit-limit-{name}".encode(), str(allowance.limit).encode()))
        headers.append((f"x-ratelimit-remaining-{name}".encode(), str(allowance.remaining).encode()))
        if allowance.resets_in is not None:
            headers.append((f"x-ratelimit-reset-{name}".encode(), duration(allowance.resets_in).encode()))
    return headers


def _tightest(allowances: Iterable[Allowance], kinds: Sequence[str], *, window: int | None = None) -> Allowance | None:
    """Those of `window` first, where it is given and there are any."""
    counting = [allowance for allowance in allowances if allowance.kind in kinds]
    fitting = [allowance for allowance in counting if allowance.window == window] or counting
    return min(fitting, key=lambda allowance: allowance.remaining, default=None)


def duration(seconds: float) -> str:
    """ "12ms", "1.5s", "6m0s", "1h2m3s": never earlier than the truth."""
    milliseconds = max(0, math.ceil(seconds * 1000))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:g}s"
    minutes, rest = divmod(math.ceil(milliseconds / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"
