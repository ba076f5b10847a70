"""Questions about usage: rows of attempts, newest first, and their totals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.tables import usage
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
    """One row per outcome (None: not settled yet): `attempts` and the sum of each count."""
    sums = (func.sum(usage.c[name]).label(name) for name in COUNTS)
    query = chosen.apply(select(usage.c.outcome, func.count().label("attempts"), *sums)).group_by(usage.c.outcome)
    return list((await connection.execute(query)).mappings())
