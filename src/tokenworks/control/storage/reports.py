"""Usage in buckets of time. Hours and days are sums of `usage_hourly`; only minutes read attempts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, ColumnElement, case, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.rollup import COUNTS, HOUR
from tokenworks.control.storage.tables import usage, usage_hourly

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
    hourly = question.width % HOUR == 0
    table = usage_hourly if hourly else usage
    moment = usage_hourly.c.hour if hourly else usage.c.opened_ns
    scale = 1 if hourly else _NANO
    bucket = (moment // (question.width * scale) * question.width).label("bucket")
    answered = table.c.outcome.not_in(UNANSWERED)
    attempts = usage_hourly.c.attempts if hourly else 1
    requests = func.sum(case((answered, attempts), else_=0)).label("requests")
    groups = [_group(table.c[name]) for name in question.group_by]
    query = (
        select(bucket, *groups, requests, *(func.sum(table.c[name]).label(name) for name in COUNTS[1:]))
        .where(table.c.organization_id == question.organization_id)
        .where(moment >= question.start * scale, moment < question.end * scale)
        .group_by(bucket, *groups)
        .order_by(bucket, *groups)
    )
    if not hourly:
        query = query.where(usage.c.settled_ns.is_not(None))
    for name, values in question.members.items():
        query = query.where(table.c[name].in_(values))
    if question.embeddings is not None:
        embeds = table.c.protocol.like(EMBEDDING)
        query = query.where(embeds if question.embeddings else ~embeds)
    return [dict(row) for row in (await connection.execute(query)).mappings()]


def _group(column: Column[Any]) -> ColumnElement[Any]:
    """An upstream may tell that it answered at the default tier; for most attempts nobody says so."""
    if column.name != "tier":
        return column
    default: Any = literal_column("'default'")
    return case((column == default, literal_column("''")), else_=column).label("tier")
