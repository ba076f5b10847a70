"""Sums of usage by the hour and by the day, so that no question about a month reads its attempts.

An attempt is rolled up and charged for once, in the transaction that completes it: when both its `Opened` and its
`Settled` have arrived. From then on its row does not change any more, so the sums are exact however often a batch is
delivered.
"""

from sqlalchemy.engine import Connection

from tokenworks.control.storage import charges
from tokenworks.core.usage import KINDS

HOUR = 3600
DAY = 24 * HOUR
DIMENSIONS = (
    "organization_id", "hour", "project_id", "key_id", "model", "protocol", "batch", "tier", "outcome", "price",
)  # fmt: skip
COUNTS = ("attempts", *KINDS, "charge", "cost")

# `rolled = 0` and `NOT rolled` are the words of the partial index, which serves only them.
_COMPLETE = "settled_ns IS NOT NULL AND organization_id <> ''"
_HOUR = f"opened_ns / {HOUR * 1_000_000_000} * {HOUR}"
_DAY = f"opened_ns / {DAY * 1_000_000_000} * {DAY}"
_KEPT = ", ".join(name for name in DIMENSIONS if name != "hour")
_SUMS = ", ".join(f"sum({name})" for name in COUNTS[1:])


def _add(table: str, period: str, moment: str, source: str) -> str:
    """Ordered, so that two writers lock rows in one order."""
    groups = ", ".join(DIMENSIONS).replace("hour", period)
    named = ", ".join(f"{moment} AS {period}" if name == "hour" else name for name in DIMENSIONS)
    grown = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in COUNTS)
    return (
        f"INSERT INTO {table} ({groups}, {', '.join(COUNTS)}) "  # noqa: S608 -- constants of this file only
        f"SELECT {named}, count(*), {_SUMS} FROM {source} GROUP BY {groups} ORDER BY {groups} "
        f"ON CONFLICT ({groups}) DO UPDATE SET {grown}"
    )


def _hourly(source: str) -> str:
    return _add("usage_hourly", "hour", _HOUR, source)


def _daily(source: str) -> str:
    return _add("usage_daily", "day", _DAY, source)


def _charged(source: str) -> str:
    """Columns of `charges.Group`."""
    return (
        f"SELECT organization_id, project_id, key_id, model, {_HOUR} AS hour, count(*), "  # noqa: S608
        f"CAST(sum(charge) AS BIGINT), CAST(sum(cost) AS BIGINT), max(settled_ns) FROM {source} "
        "GROUP BY organization_id, project_id, key_id, model, hour"
    )


# SQLite has no data-changing WITH, but only one writer, so nothing comes between its statements.
_SQLITE = (
    _hourly(f"usage WHERE rolled = 0 AND {_COMPLETE}"),
    _daily(f"usage WHERE rolled = 0 AND {_COMPLETE}"),
    _charged(f"usage WHERE rolled = 0 AND {_COMPLETE}"),
    f"UPDATE usage SET rolled = 1, posting = ? WHERE rolled = 0 AND {_COMPLETE}",  # noqa: S608
)
_POSTGRESQL = (
    f"WITH taken AS (UPDATE usage SET rolled = true, posting = $1 WHERE NOT rolled AND {_COMPLETE} "  # noqa: S608
    f"RETURNING opened_ns, settled_ns, {_KEPT}, {', '.join(COUNTS[1:])}), hours AS ({_hourly('taken')}), "
    f"days AS ({_daily('taken')}) {_charged('taken')}"
)


def advance(connection: Connection) -> None:
    """Take up every attempt that is complete and was not yet."""
    posting = charges.new_posting()
    if connection.dialect.name == "sqlite":
        hourly, daily, charged, take = _SQLITE
        connection.exec_driver_sql(hourly)
        connection.exec_driver_sql(daily)
        rows = connection.exec_driver_sql(charged).all()
        connection.exec_driver_sql(take, (posting,))
    else:
        rows = connection.exec_driver_sql(_POSTGRESQL, (posting,)).all()
    charges.post(connection, posting, [charges.Group(*row) for row in rows])
