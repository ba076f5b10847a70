"""What usage and costs share: the span that is asked for, cut into buckets and pages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from tokenworks.core.errors import InvalidRequest

T = TypeVar("T", bound=BaseModel)

WIDTHS = {"1m": 60, "1h": 3600, "1d": 86400}
LONGEST_SPAN = 20 * 366 * 86400
_PAGE = "page_"


class Bucket(BaseModel, Generic[T]):
    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[T]


class BucketPage(BaseModel, Generic[T]):
    object: Literal["page"] = "page"
    data: list[Bucket[T]]
    has_more: bool
    next_page: str | None


@dataclass(frozen=True, slots=True)
class Span:
    """One page: buckets from `start` up to `end`, of the question that goes on to `last`."""

    start: int
    end: int
    last: int
    width: int


def span(start: int, end: int | None, width: int, limit: int, page: str | None, now: int) -> Span:
    """Buckets are aligned in UTC, so the first begins at or before `start` and the last ends at or after `end`."""
    end = now + 1 if end is None else end
    if end <= start:
        raise InvalidRequest("end_time: must be after start_time.", param="end_time")
    if end - start > LONGEST_SPAN:
        raise InvalidRequest("start_time: at most 20 years can be asked for at once.", param="start_time")
    first = start // width * width
    last = -(-end // width) * width
    if page is not None:
        digits = page.removeprefix(_PAGE)
        first = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 12 else -1
        if first % width or not start // width * width <= first < last:
            raise InvalidRequest("page: must be the next_page of the page before.", param="page")
    return Span(first, min(first + limit * width, last), last, width)


def cut(asked: Span, rows: list[Mapping[str, Any]], make: Callable[[Mapping[str, Any]], list[Any]]) -> Any:
    """Every bucket of the span, those without usage too."""
    results: dict[int, list[Any]] = {start: [] for start in range(asked.start, asked.end, asked.width)}
    for row in rows:
        results[row["bucket"]] += make(row)
    more = asked.end < asked.last
    return BucketPage(
        data=[
            Bucket(start_time=start, end_time=start + asked.width, results=found) for start, found in results.items()
        ],
        has_more=more,
        next_page=f"{_PAGE}{asked.end}" if more else None,
    )
