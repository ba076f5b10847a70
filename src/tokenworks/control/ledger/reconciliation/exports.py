"""Usage and cost exports of providers, in the shapes that they document, as one kind of row.

Known by their shape, not by a name: pages of buckets with `start_time` (`/organization/usage/completions` and
`/organization/costs`), pages with `starting_at` (`/organizations/usage_report/messages` and `/cost_report`), and CSV
with the columns of `COLUMNS`. One file may hold one page, a list of pages, or a page per line.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.money import NANO_PER_USD

COUNTS = ("requests", "input", "cached_input", "cache_write", "output")
COST = "cost"
MEASURES = (*COUNTS, COST)
COLUMNS = ("day", "model", "key", *COUNTS, "cost_usd")
"""Of a CSV export. `day` and `model` are needed, and at least one that is counted."""
_CENT = Decimal(NANO_PER_USD) / 100


@dataclass(frozen=True, slots=True)
class Observed:
    """What a provider tells of a day (in UTC), a model and a key of its own; only the measures that it tells."""

    day: str
    model: str
    key: str
    measures: Mapping[str, int]
    """`cost` in nano-dollars."""


@dataclass(slots=True)
class Export:
    """`days` are all that it covers, those without usage too."""

    rows: list[Observed] = field(default_factory=list)
    days: set[str] = field(default_factory=set)


def read(texts: list[str]) -> Export:
    """All files of one provider together. InvalidRequest names the file by its number."""
    export = Export()
    for number, text in enumerate(texts):
        try:
            _read(text, export)
        except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation, OverflowError) as error:
            said = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            raise InvalidRequest(
                f"exports.{number}: this is none of the exports that are known ({said}); docs/billing.md lists them.",
                param=f"exports.{number}",
                code="unknown_export",
            ) from error
    return export


def _read(text: str, export: Export) -> None:
    start = text.lstrip("\ufeff \r\n\t")
    if not start.startswith(("{", "[")):
        return _table(start, export)
    for page in _pages(start):
        for bucket in page["data"]:
            read_bucket = _seconds_bucket if "start_time" in bucket else _dated_bucket
            read_bucket(bucket, export)
    return None


def _pages(text: str) -> Iterator[dict[str, Any]]:
    """Amounts stay decimal: a float would lose what it was printed from."""
    try:
        whole = json.loads(text, parse_float=Decimal)
        yield from whole if isinstance(whole, list) else [whole]
    except json.JSONDecodeError:
        for line in filter(str.strip, text.splitlines()):
            yield json.loads(line, parse_float=Decimal)


def _seconds_bucket(bucket: dict[str, Any], export: Export) -> None:
    day = datetime.fromtimestamp(int(bucket["start_time"]), UTC).date().isoformat()
    export.days.add(day)
    for each in bucket.get("results", bucket.get("result", ())):
        if "amount" in each:
            if str(each["amount"]["currency"]).lower() != "usd":
                raise ValueError("an amount is not in USD")
            model = str(each.get("line_item") or "").partition(",")[0].strip()
            cost = _nano(each["amount"]["value"], Decimal(NANO_PER_USD))
            _add(export, day, model, each.get("api_key_id"), {COST: cost})
        else:
            cached, written = _count(each, "input_cached_tokens"), _count(each, "input_cache_write_tokens")
            fresh = each.get("input_uncached_tokens")
            measures = {
                "requests": _count(each, "num_model_requests"),
                "input": int(each["input_tokens"]) - cached - written if fresh is None else int(fresh),
                "cached_input": cached,
                "cache_write": written,
                "output": int(each["output_tokens"]),
            }
            _add(export, day, each.get("model"), each.get("api_key_id"), measures)


def _dated_bucket(bucket: dict[str, Any], export: Export) -> None:
    day = datetime.fromisoformat(bucket["starting_at"].replace("Z", "+00:00")).astimezone(UTC).date().isoformat()
    export.days.add(day)
    for each in bucket["results"]:
        if "amount" in each:
            if str(each["currency"]).lower() != "usd":
                raise ValueError("an amount is not in USD")
            model = each.get("model") or each.get("description")
            _add(export, day, model, each.get("api_key_id"), {COST: _nano(each["amount"], _CENT)})
        else:
            written = each.get("cache_creation") or {}
            measures = {
                "input": int(each["uncached_input_tokens"]),
                "cached_input": _count(each, "cache_read_input_tokens"),
                "cache_write": sum(int(written.get(f"ephemeral_{how}_input_tokens") or 0) for how in ("5m", "1h")),
                "output": int(each["output_tokens"]),
            }
            _add(export, day, each.get("model"), each.get("api_key_id"), measures)


def _table(text: str, export: Export) -> None:
    reader = csv.DictReader(io.StringIO(text))
    columns = set(reader.fieldnames or ())
    if not {"day", "model"} <= columns or not columns & {*COUNTS, "cost_usd"}:
        raise ValueError(f"a CSV needs the columns day, model, and some of {', '.join((*COUNTS, 'cost_usd'))}")
    if unknown := columns - set(COLUMNS):
        raise ValueError(f"unknown columns: {', '.join(sorted(unknown))}")
    for row in reader:
        day = date.fromisoformat(row["day"]).isoformat()
        export.days.add(day)
        measures = {name: int(row[name] or 0) for name in COUNTS if name in columns}
        if "cost_usd" in columns:
            measures[COST] = _nano(row["cost_usd"] or 0, Decimal(NANO_PER_USD))
        _add(export, day, row["model"], row.get("key"), measures)


def _add(export: Export, day: str, model: Any, key: Any, measures: dict[str, int]) -> None:
    export.rows.append(Observed(day, str(model or ""), str(key or ""), measures))


def _count(each: dict[str, Any], name: str) -> int:
    return int(each.get(name) or 0)


def _nano(amount: Any, scale: Decimal) -> int:
    """Providers print more digits than a nano-dollar has: half to even."""
    return int((Decimal(str(amount)) * scale).to_integral_value())
