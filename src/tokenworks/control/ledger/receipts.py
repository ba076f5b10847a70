"""What one request took and cost, attempt by attempt, and who paid."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.engine import Connection

from tokenworks.control.ledger.corrections import given_back
from tokenworks.control.ledger.invoicing import shown
from tokenworks.control.ledger.lines import Group, Rates, lines
from tokenworks.control.ledger.months import of as month_of
from tokenworks.control.ledger.rates import rates_of
from tokenworks.control.storage import proofs
from tokenworks.core.price import BYOK
from tokenworks.core.usage import KINDS

ROUNDING = "Each attempt is charged as a whole, rounded half up to a nano-dollar; its lines divide that sum exactly."
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Reader:
    """Whose receipts may be read. None: any. `sees_costs`: what we paid, too."""

    organization_id: str | None = None
    project_id: str | None = None
    sees_costs: bool = False


def receipt(connection: Connection, request_id: str, reader: Reader, now: int) -> dict[str, Any] | None:
    """None when there is no such request that this reader may see."""
    attempts = [
        row
        for row in proofs.attempts_of(connection, request_id)
        if reader.organization_id in (None, row["organization_id"]) and reader.project_id in (None, row["project_id"])
    ]
    if not attempts:
        return None
    first = attempts[0]
    organization_id, rates = first["organization_id"], rates_of(connection)
    return {
        "object": "receipt",
        "request_id": request_id,
        "organization_id": organization_id,
        "project_id": first["project_id"],
        "key_id": first["key_id"],
        "protocol": first["protocol"],
        "model": first["model"],
        "alias": first["alias"] or None,
        "alias_version": first["alias_version"] or None,
        "currency": "USD",
        "issued_at": now,
        "final": all(row["settled_ns"] is not None for row in attempts),
        "attempts": [_attempt(connection, row, reader, rates) for row in attempts],
        "charge": shown(sum(row["charge"] for row in attempts if row["settled_ns"] is not None)),
        "refunded": shown(given_back(connection, organization_id, request_id)),
        "rounding": ROUNDING,
    }


def _attempt(connection: Connection, row: Mapping[str, Any], reader: Reader, rates: Rates) -> dict[str, Any]:
    ended = row["settled_ns"] is not None
    counts = {kind: row[kind] for kind in KINDS if row[kind]}
    seconds = row["opened_ns"] // _NANO
    group = Group(
        month_of(seconds), row["project_id"], row["key_id"], row["model"], row["price"], bool(row["batch"]),
        row["tier"], 1, row["charge"], counts,
    )  # fmt: skip
    told: dict[str, Any] = {
        "attempt": row["attempt"],
        "opened_at": seconds,
        "ended_at": row["settled_ns"] // _NANO if ended else None,
        "provider": row["provider"],
        "upstream": row["upstream"],
        "upstream_model": row["upstream_model"],
        "outcome": row["outcome"] or "open",
        "status": row["status"],
        "error": row["error"] or None,
        "tier": "batch" if row["batch"] else row["tier"] or "standard",
        "usage": counts,
        "estimated": bool(row["estimated"]),
        "reported": _other(row["reported"]),
        "counted": _other(row["counted"]),
        "byok": bool(row["byok"]) or row["price"] == BYOK,
        "price": row["price"] or None,
        "lines": [line.shown() for line in lines(group, rates(row["price"]))] if ended else [],
        "charge": shown(row["charge"]),
        "paid_by": _payer(row) if ended else None,
        "residency": row["residency"] or None,
        "ledger_transaction": proofs.transaction_of(connection, row),
    }
    if reader.sees_costs:
        told |= {"cost": shown(row["cost"]), "cost_price": row["cost_price"] or None}
    return told


def _payer(row: Mapping[str, Any]) -> str:
    """The customer pays for what was answered; what failed costs the operator what its provider asks, or nobody."""
    if row["charge"] or row["price"] == BYOK:
        return "customer"
    return "operator" if row["cost"] else "nobody"


def _other(text: str | None) -> dict[str, int] | None:
    """Other counts than those billed."""
    return None if text is None else json.loads(text)
