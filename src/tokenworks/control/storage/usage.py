"""Questions about usage: rows of attempts, newest first, and their totals."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, Table, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.rollup import DAY, HOUR
from tokenworks.control.storage.tables import usage, usage_daily, usage_hourly
from tokenworks.core.usage import KINDS

COUNTS = (*KINDS, "charge", "cost")
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Filter:
    """`start` and `end` are Unix seconds of the attempt's start; `end` is exclusive."""

    start: int | None = None
    end: int | None = None
    key_id: str | None = None
    model: str | None = None
    organization_id: str | None = None
    alias: str | None = None
    shadow: bool | None = None
    byok: bool | None = None

    @property
    def summed(self) -> bool:
        """Whether sums know what it asks for."""
        return self.alias is None and self.shadow is None and self.byok is None

    def apply(self, query: Select[Any]) -> Select[Any]:
        if self.start is not None:
            query = query.where(usage.c.opened_ns >= self.start * _NANO)
        if self.end is not None:
            query = query.where(usage.c.opened_ns < self.end * _NANO)
        if self.key_id is not None:
            query = query.where(usage.c.key_id == self.key_id)
        if self.model is not None:
            query = query.where(usage.c.model == self.model)
        if self.organization_id is not None:
            query = query.where(usage.c.organization_id == self.organization_id)
        if self.alias is not None:
            query = query.where(usage.c.alias == self.alias)
        if self.shadow is not None:
            query = query.where(usage.c.shadow.is_(self.shadow))
        if self.byok is not None:
            query = query.where(usage.c.byok.is_(self.byok))
        return query


async def page(
    connection: AsyncConnection, chosen: Filter, limit: int, after: tuple[str, int] | None
) -> list[Mapping[str, Any]] | None:
    """At most `limit` rows that follow the attempt `after`; None when there is no such attempt."""
    query = chosen.apply(select(usage))
    if after is not None:
        at = select(usage.c.opened_ns).where(usage.c.request_id == after[0], usage.c.attempt == after[1])
        opened_ns = (await connection.execute(at)).scalar()
        if opened_ns is None:
            return None
        query = query.where(
            usage.c.opened_ns <= opened_ns,  # says nothing new, but lets the index be used
            tuple_(usage.c.opened_ns, usage.c.request_id, usage.c.attempt) < tuple_(opened_ns, *after),
        )
    order = (usage.c.opened_ns.desc(), usage.c.request_id.desc(), usage.c.attempt.desc())
    return list((await connection.execute(query.order_by(*order).limit(limit))).mappings())


async def totals(connection: AsyncConnection, chosen: Filter) -> list[Mapping[str, Any]]:
    """One row per outcome (None: not settled yet): `attempts` and the sum of each count.

    Whole days and hours are read from their sums, so attempts are read only where the span begins or ends within an
    hour, and those that are in no sum yet.
    """
    unsummed = text(UNSUMMED[connection.dialect.name])
    queries = [_attempts(chosen, None, None).where(unsummed)]
    if not chosen.summed:
        queries = [_attempts(chosen, None, None)]
    for table, span in _cut(chosen.start, chosen.end) if chosen.summed else ():
        if table is usage:
            queries.append(_attempts(chosen, *span).where(usage.c.rolled.is_(True)))
        else:
            queries.append(_summed(table, chosen, *span))
    found: dict[str | None, Counter[str]] = {}
    for query in queries:
        for row in (await connection.execute(query)).mappings():
            sums = found.setdefault(row["outcome"], Counter())
            sums.update({name: int(row[name]) for name in ("attempts", *COUNTS)})
    names = ("attempts", *COUNTS)
    return [{"outcome": outcome, **{name: sums[name] for name in names}} for outcome, sums in found.items()]


UNSUMMED = {"sqlite": "rolled = 0", "postgresql": "NOT rolled"}
"""The words of the partial index, which serves only them."""
_Span = tuple[int | None, int | None]
_SCALES = {DAY: usage_daily, HOUR: usage_hourly}


def _cut(start: int | None, end: int | None, widths: tuple[int, ...] = (DAY, HOUR)) -> list[tuple[Table, _Span]]:
    """A span (in Unix seconds; None: without a border) as whole days, whole hours around them, and the rest."""
    if start is not None and end is not None and start >= end:
        return []
    if not widths:
        return [(usage, (start, end))]
    width, *finer = widths
    first = None if start is None else -(-start // width) * width
    last = None if end is None else end // width * width
    if first is not None and last is not None and first >= last:
        return _cut(start, end, tuple(finer))
    before = [] if start is None else _cut(start, first, tuple(finer))
    after = [] if end is None else _cut(last, end, tuple(finer))
    return [*before, (_SCALES[width], (first, last)), *after]


def _attempts(chosen: Filter, start: int | None, end: int | None) -> Select[Any]:
    """All of the filter's span where `start` and `end` say nothing."""
    sums = (func.sum(usage.c[name]).label(name) for name in COUNTS)
    query = chosen.apply(select(usage.c.outcome, func.count().label("attempts"), *sums)).group_by(usage.c.outcome)
    if start is not None:
        query = query.where(usage.c.opened_ns >= start * _NANO)
    if end is not None:
        query = query.where(usage.c.opened_ns < end * _NANO)
    return query


def _summed(table: Table, chosen: Filter, start: int | None, end: int | None) -> Select[Any]:
    moment = table.c.day if table is usage_daily else table.c.hour
    query = select(table.c.outcome, *(func.sum(table.c[name]).label(name) for name in ("attempts", *COUNTS)))
    if start is not None:
        query = query.where(moment >= start)
    if end is not None:
        query = query.where(moment < end)
    for name in ("key_id", "model", "organization_id"):
        if (value := getattr(chosen, name)) is not None:
            query = query.where(table.c[name] == value)
    return query.group_by(table.c.outcome)
