"""Calendar months in UTC, as `2026-11`. Unix seconds know no leap seconds, and so do they not."""

import calendar
import re
from datetime import UTC, datetime

_SHAPE = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


def span(month: str) -> tuple[int, int]:
    """Unix seconds of its beginning and of its end, exclusive. ValueError when it is no month."""
    found = _SHAPE.fullmatch(month)
    if not found or not 1970 <= int(found[1]) < 9999:
        raise ValueError(f"{month!r} is no month such as 2026-11")
    year, number = int(found[1]), int(found[2])
    following = (year, number + 1) if number < 12 else (year + 1, 1)
    return calendar.timegm((year, number, 1, 0, 0, 0)), calendar.timegm((*following, 1, 0, 0, 0))


def of(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m")
