"""Attempts whose gateway never came back: settled from the last progress that it shipped."""

from sqlalchemy import text
from sqlalchemy.engine import Connection

from tokenworks.control.storage import rollup

REASON = "its gateway did not come back"
_NANO = 1_000_000_000

# `rolled = 0` and `NOT rolled` are the words of the partial index.
_UNROLLED = {"sqlite": "rolled = 0", "postgresql": "NOT rolled"}
_SETTLE = """
UPDATE usage SET settled_ns = :now, outcome = 'lost', status = 500, error = :reason, estimated = :yes,
    finish_reason = '', first_token_ns = 0, duration_ns = :now - opened_ns
WHERE settled_ns IS NULL AND (request_id, attempt) IN (
    SELECT request_id, attempt FROM usage
    WHERE {unrolled} AND settled_ns IS NULL AND opened_ns > 0 AND opened_ns < :before ORDER BY opened_ns LIMIT :limit)
"""


def settle(connection: Connection, before: int, now_ns: int, limit: int) -> int:
    """At most `limit` open attempts that began before this Unix second. From then on their own settlement is refused
    as any second one is, so a gateway that does come back doubles nothing."""
    statement = text(_SETTLE.format(unrolled=_UNROLLED[connection.dialect.name]))
    values = {"now": now_ns, "reason": REASON, "yes": True, "before": before * _NANO, "limit": limit}
    count = connection.execute(statement, values).rowcount
    if count:
        rollup.advance(connection)
    return count
