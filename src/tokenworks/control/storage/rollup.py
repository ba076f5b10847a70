"""Sums of usage by the hour, so that no question about a month reads its attempts.

An attempt is rolled up once, in the transaction that completes it: when both its `Opened` and its `Settled` have
arrived. From then on its row does not change any more, so the sums are exact however often a batch is delivered.
"""

from sqlalchemy.engine import Connection

from tokenworks.core.usage import KINDS

HOUR = 3600
DIMENSIONS = ("organization_id", "hour", "project_id", "key_id", "model", "protocol", "batch", "tier", "outcome")
COUNTS = ("attempts", *KINDS, "charge", "cost")

# `rolled = 0` and `NOT rolled` are the words of the partial index, which serves only them.
_COMPLETE = "settled_ns IS NOT NULL AND organization_id <> ''"
_HOUR = f"opened_ns / {HOUR * 1_000_000_000} * {HOUR}"
_KEPT = ", ".join(name for name in DIMENSIONS if name != "hour")
_SUMS = ", ".join(f"sum({name})" for name in COUNTS[1:])
_GROUPS = ", ".join(DIMENSIONS)
_GROWN = ", ".join(f"{name} = usage_hourly.{name} + excluded.{name}" for name in COUNTS)


def _add(source: str) -> str:
    """Ordered, so that two writers lock rows in one order."""
    named = ", ".join(_HOUR + " AS hour" if name == "hour" else name for name in DIMENSIONS)
    return (
        f"INSERT INTO usage_hourly ({_GROUPS}, {', '.join(COUNTS)}) "  # noqa: S608 -- constants of this file only
        f"SELECT {named}, count(*), {_SUMS} FROM {source} GROUP BY {_GROUPS} ORDER BY {_GROUPS} "
        f"ON CONFLICT ({_GROUPS}) DO UPDATE SET {_GROWN}"
    )


_STATEMENTS = {
    # The only writer, so nothing comes between the two.
    "sqlite": (
        _add(f"usage WHERE rolled = 0 AND {_COMPLETE}"),
        f"UPDATE usage SET rolled = 1 WHERE rolled = 0 AND {_COMPLETE}",  # noqa: S608
    ),
    "postgresql": (
        f"WITH taken AS (UPDATE usage SET rolled = true WHERE NOT rolled AND {_COMPLETE} "  # noqa: S608
        f"RETURNING opened_ns, {_KEPT}, {', '.join(COUNTS[1:])}) {_add('taken')}",
    ),
}


def advance(connection: Connection) -> None:
    """Take up every attempt that is complete and was not yet."""
    for statement in _STATEMENTS[connection.dialect.name]:
        connection.exec_driver_sql(statement)
