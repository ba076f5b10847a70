"""`usage` on PostgreSQL: a partition for every month of the request ids, made before the month begins.

An id begins with the second it was made in, so (request_id, attempt) stays unique over all partitions, a request is
found in one of them, and an old month is dropped as a whole. `usage_default` takes what belongs to no month there is:
ids of another form, and of a gateway whose clock is far off. On SQLite there is one table.
"""

import re
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.engine import Connection

from tokenworks.core.request_ids import first

AHEAD = 3
"""Months made before they begin."""
SLACK_SECONDS = 7 * 86_400
"""An attempt may begin so much later than its request's id was made (a batch runs for a day)."""
PREFIX = "usage_"
_NAME = re.compile(PREFIX + r"(\d{4})_(\d{2})")
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"
_NANO = 1_000_000_000


def months(connection: Connection) -> list[str]:
    """Names of the partitions of months, oldest first."""
    query = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage'::regclass")
    return sorted(name for name in connection.execute(query).scalars() if _NAME.fullmatch(name))


def make(connection: Connection, now: int) -> list[str]:
    """Partitions of this month and of those ahead that are missing; returns their names.

    Raises DBAPIError when the table is busy for 2 s: the rows are safe in `usage_default` until the next try.
    """
    if connection.dialect.name != "postgresql":
        return []
    moment = datetime.fromtimestamp(now, UTC)
    wanted = [_month(moment.year, moment.month + number) for number in range(AHEAD + 1)]
    missing = [name for name in wanted if name not in months(connection)]
    if missing:
        connection.exec_driver_sql(_LOCK_TIMEOUT)
        # Nobody may add to it between the move and the attachment; waiting inserts go on to the new partition.
        connection.exec_driver_sql("LOCK TABLE usage_default IN ACCESS EXCLUSIVE MODE")
    for name in missing:
        begin, end = (first(moment) for moment in bounds(name))
        connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE usage INCLUDING DEFAULTS)")
        connection.exec_driver_sql(
            f"WITH moved AS (DELETE FROM usage_default WHERE request_id >= '{begin}' AND request_id < '{end}' "  # noqa: S608 -- names and digits made here
            f"RETURNING *) INSERT INTO {name} SELECT * FROM moved"
        )
        connection.exec_driver_sql(
            f"ALTER TABLE usage ATTACH PARTITION {name} FOR VALUES FROM ('{begin}') TO ('{end}')"
        )
    return missing


def drop(connection: Connection, before: int) -> list[str]:
    """Partitions all of whose attempts began before this Unix second and are in the sums; returns their names."""
    if connection.dialect.name != "postgresql":
        return []
    dropped = []
    for name in months(connection):
        _, end = bounds(name)
        if end + SLACK_SECONDS > before or _unfinished(connection, name):
            continue
        connection.exec_driver_sql(_LOCK_TIMEOUT)
        connection.exec_driver_sql(f"DROP TABLE {name}")
        dropped.append(name)
    return dropped


def delete(connection: Connection, before: int, limit: int) -> int:
    """At most so many attempts that began before this Unix second, where no partition goes as a whole."""
    table, row = ("usage_default", "ctid") if connection.dialect.name == "postgresql" else ("usage", "rowid")
    statement = (
        f"DELETE FROM {table} WHERE {row} IN (SELECT {row} FROM {table} "  # noqa: S608 -- constants
        "WHERE opened_ns > 0 AND opened_ns < :before AND rolled ORDER BY opened_ns LIMIT :limit)"
    )
    return connection.execute(text(statement), {"before": before * _NANO, "limit": limit}).rowcount


def bounds(name: str) -> tuple[int, int]:
    """Unix seconds of a month's begin and end."""
    year, month = (int(part) for part in name.removeprefix(PREFIX).split("_"))
    after = (year + 1, 1) if month == 12 else (year, month + 1)
    return _second(year, month), _second(*after)


def _unfinished(connection: Connection, name: str) -> bool:
    query = f"SELECT 1 FROM {name} WHERE NOT rolled LIMIT 1"  # noqa: S608 -- a name from `months`
    return connection.exec_driver_sql(query).first() is not None


def _month(year: int, month: int) -> str:
    """`month` may be more than twelve."""
    return f"{PREFIX}{year + (month - 1) // 12:04d}_{(month - 1) % 12 + 1:02d}"


def _second(year: int, month: int) -> int:
    return int(datetime(year, month, 1, tzinfo=UTC).timestamp())
