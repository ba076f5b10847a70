"""Our own side of a provider's bill: what it reported of each attempt, or what we counted where it reported nothing."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import RowMapping, select
from sqlalchemy.engine import Connection

from tokenworks.control.storage.tables import usage
from tokenworks.core.usage import KINDS

_NANO = 1_000_000_000
_FETCHED = 1000
_READ = ("input", "cached_input", "cache_write", "output")


@dataclass(frozen=True, slots=True)
class Own:
    """One attempt. `opened` and `ended` are Unix seconds."""

    request_id: str
    attempt: int
    opened: int
    ended: int | None
    model: str
    upstream: str
    outcome: str
    estimated: bool
    measures: Mapping[str, int]


def attempts(connection: Connection, provider: str, start: int, end: int) -> Iterator[Own]:
    """All at this provider that began in these days and took something, or might have."""
    columns = (
        "request_id", "attempt", "opened_ns", "settled_ns", "duration_ns", "upstream_model", "upstream", "outcome",
        "estimated", "reported", "cost", *KINDS,
    )  # fmt: skip
    query = (
        select(*(usage.c[name] for name in columns))
        .where(usage.c.opened_ns >= start * _NANO, usage.c.opened_ns < end * _NANO, usage.c.provider == provider)
        .order_by(usage.c.opened_ns, usage.c.request_id, usage.c.attempt)
    )
    result = connection.execute(query)
    while rows := result.mappings().fetchmany(_FETCHED):
        yield from (_own(row) for row in rows)


def providers(connection: Connection, start: int, end: int) -> Sequence[str]:
    query = select(usage.c.provider).where(usage.c.opened_ns >= start * _NANO, usage.c.opened_ns < end * _NANO)
    return connection.execute(query.distinct().order_by(usage.c.provider)).scalars().all()


def _own(row: RowMapping) -> Own:
    """The provider bills what it reported, which is not what the customer is billed for where an attempt failed."""
    counts = json.loads(row["reported"]) if row["reported"] else {kind: row[kind] for kind in KINDS}
    measures = {name: int(counts.get(name, 0)) for name in _READ}
    took = any(measures.values()) or row["cost"]
    return Own(
        request_id=row["request_id"],
        attempt=row["attempt"],
        opened=row["opened_ns"] // _NANO,
        ended=None if row["settled_ns"] is None else (row["opened_ns"] + row["duration_ns"]) // _NANO,
        model=row["upstream_model"],
        upstream=row["upstream"],
        outcome=row["outcome"] or "open",
        estimated=bool(row["estimated"]),
        measures={"requests": 1 if took else 0, **measures, "cost": row["cost"]},
    )
