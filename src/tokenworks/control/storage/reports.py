"""Usage in buckets of time. Days and hours are sums that ingest keeps; only minutes read attempts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, case, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.rollup import COUNTS, DAY, HOUR
from tokenworks.control.storage.tables import usage, usage_daily, usage_hourly

_NANO = 1_000_000_000
UNANSWERED = ("failed", "overtaken")
EMBEDDING = "%embed%"
"""In the name of every protocol and dialect that embeds."""


@dataclass(frozen=True, slots=True)
class Question:
    """`start` and `end` are multiples of `width`, in Unix seconds. `members`: the values allowed, by dimension."""

    organization_id: str
    start: int
    end: int
    width: int
    group_by: Sequence[str] = ()
    members: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    embeddings: bool | None = None
    """None: whatever was asked."""


async def buckets(connection: AsyncConnection, question: Question) -> list[Mapping[str, Any]]:
    """Rows of `bucket`, the groups, `requests` and the sums; a bucket without usage has none."""
    table, moment, scale = _source(question.width)
    bucket = (moment // (question.width * scale) * question.width).label("bucket")
    answered = table.c.outcome.not_in(UNANSWERED)
    attempts = 1 if table is usage else table.c.attempts
    requests = func.sum(case((answered, attempts), else_=0)).label("requests")
    groups = [_group(table.c[name]) for name in question.group_by]
    query = (
        select(bucket, *groups, requests, *(func.sum(table.c[name]).label(name) for name in COUNTS[1:]))
        .where(table.c.organization_id == question.organization_id)
        .where(moment >= question.start * scale, moment < question.end * scale)
        .group_by(bucket, *groups)
        .order_by(bucket, *groups)
    )
    if table is usage:
        query = query.where(usage.c.settled_ns.is_not(None))
    for name, values in question.members.items():
        query = query.where(table.c[name].in_(values))
    if question.embeddings is not None:
        embeds = table.c.protocol.like(EMBEDDING)
        query = query.where(embeds if question.embeddings else ~embeds)
    return [dict(row) for row in (await connection.execute(query)).mappings()]


def _source(width: int) -> tuple[Table, Column[int], int]:
    """The coarsest table that knows such buckets, its column of time, and how many of its units a second has."""
    if width % DAY == 0:
        return usage_daily, usage_daily.c.day, 1
    if width % HOUR == 0:
        return usage_hourly, usage_hourly.c.hour, 1
    return usage, usage.c.opened_ns, _NANO


def _group(column: Column[Any]) -> ColumnElement[Any]:
    """An upstream may tell that it answered at the default tier; for most attempts nobody says so."""
    if column.name != "tier":
        return column
    default: Any = literal_column("'default'")
    return case((column == default, literal_column("''")), else_=column).label("tier")
