"""A list one page at a time: newest first, continued after the id of the last row that was shown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Column, Select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    data: list[T]
    has_more: bool


class UnknownCursor(Exception):
    """`after` names no row of this list."""


async def page(
    connection: AsyncConnection,
    query: Select[Any],
    order: tuple[Column[Any], Column[Any]],
    limit: int,
    after: str | None,
    make: Callable[[Any], T],
    *,
    descending: bool = True,
) -> Page[T]:
    """`order`: the columns of a row's time and of its id."""
    moment, identity = order
    if after is not None:
        at = (await connection.execute(query.with_only_columns(moment).where(identity == after))).scalar()
        if at is None:
            raise UnknownCursor(after)
        here, there = tuple_(moment, identity), tuple_(at, after)
        query = query.where(here < there if descending else here > there)
    columns = (moment.desc(), identity.desc()) if descending else (moment, identity)
    rows = (await connection.execute(query.order_by(*columns).limit(limit + 1))).all()
    return Page([make(row) for row in rows[:limit]], len(rows) > limit)
