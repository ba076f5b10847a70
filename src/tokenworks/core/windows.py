"""Windows in which things are counted, as numbers: which one a moment lies in, and when it begins.

A window is so many seconds, or a period of the calendar. `offset` shifts the borders in seconds: -3600 for midnights
one hour east of Greenwich. gateway/admission/limits/valkey.lua has the same arithmetic.
"""

from datetime import UTC, date, datetime
from functools import lru_cache

FOREVER = 0
"""A window that never ends."""
DAY, WEEK, MONTH = -1, -2, -3
"""Windows of the calendar; weeks begin on Monday."""
PERIODS = {"day": DAY, "week": WEEK, "month": MONTH, "total": FOREVER}

DAY_SECONDS = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
_MONDAY = 3
"""1970-01-01 was a Thursday: its week began this many days before."""


def epoch_at(seconds: float, window: int, offset: int) -> int:
    """The number of the window at Unix `seconds`."""
    if window == FOREVER:
        return 0
    local = seconds - offset
    if window > 0:
        return int(local // window)
    days = int(local // DAY_SECONDS)
    if window == DAY:
        return days
    if window == WEEK:
        return (days + _MONDAY) // 7
    return _month(days)


@lru_cache(maxsize=64)
def _month(days: int) -> int:
    today = datetime.fromtimestamp(days * DAY_SECONDS, UTC)
    return today.year * 12 + today.month - 1


@lru_cache(maxsize=1024)
def beginning(epoch: int, window: int, offset: int) -> int:
    """Unix seconds at which a window begins; 0 for FOREVER."""
    if window == FOREVER:
        return 0
    if window > 0:
        return epoch * window + offset
    if window == MONTH:
        days = date(epoch // 12, epoch % 12 + 1, 1).toordinal() - _EPOCH
    else:
        days = epoch if window == DAY else epoch * 7 - _MONDAY
    return days * DAY_SECONDS + offset
