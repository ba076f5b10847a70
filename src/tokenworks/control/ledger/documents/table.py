"""A document as CSV: one row per line, then refunds, tax and total, each with its amount."""

import csv
import io
from pathlib import Path
from typing import Any

COLUMNS = (
    "number", "month", "project_id", "project", "key_id", "key", "model", "tier", "price", "requests", "kind",
    "quantity", "unit", "usd_per_million", "amount_usd", "amount_nano_usd",
)  # fmt: skip
_TEXTS = ("project", "key", "model")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def render(document: dict[str, Any], font: Path | None = None) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    for row in _rows(document):
        writer.writerow({"number": document["number"] or "", **row})
    return file.getvalue().encode()


def _rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    month = document["month"]
    if document["object"] == "credit_note":
        money = [("credit", document["net"]), ("tax", document["tax"]), ("total", document["total"])]
        return [{"month": month, "kind": kind, **_amount(amount, -1)} for kind, amount in money]
    rows = [{name: _plain(name, line[name]) for name in COLUMNS if name in line} for line in document["lines"]]
    for refund in document["refunds"]:
        amount = {"nano_usd": refund["amount_nano_usd"], "usd": refund["amount_usd"]}
        rows.append({"month": month, "model": refund["model"], "kind": "refund", **_amount(amount, -1)})
    for kind in ("tax", "total", "due"):
        rows.append({"month": month, "kind": kind, **_amount(document[kind])})
    return rows


def _amount(money: dict[str, Any], sign: int = 1) -> dict[str, Any]:
    negative = sign < 0 and money["nano_usd"]
    return {"amount_usd": f"{'-' if negative else ''}{money['usd']}", "amount_nano_usd": sign * money["nano_usd"]}


def _plain(name: str, value: Any) -> Any:
    """A name that somebody chose must not become a formula in whoever's spreadsheet."""
    if name in _TEXTS and str(value).startswith(_FORMULA):
        return f"'{value}"
    return "" if value is None else value
