"""Events that webhook endpoints can hear of: their bodies, and who is told of them."""

from typing import Any

import msgspec
from sqlalchemy.engine import Connection

from tokenworks.control.keys import new_id
from tokenworks.control.storage import deliveries, endpoints
from tokenworks.control.storage.limits import Limit
from tokenworks.core.money import nano_to_usd

BUDGET_THRESHOLD = "budget.threshold_reached"
TEST = "webhook.test"
OF_PROJECTS = (
    *(f"batch.{status}" for status in ("completed", "failed", "expired", "cancelled")),
    *(f"response.{status}" for status in ("completed", "failed", "cancelled", "incomplete")),
)
"""The endings of what runs while nobody waits for it, by the names that OpenAI's clients know."""
_ENCODE = msgspec.json.Encoder().encode


def threshold_reached(budget: Limit, threshold: int, spent: int, begins: int, now: int) -> tuple[str, bytes]:
    """The event's id and body. Money twice: exact in nano-dollars, and as decimal USD."""
    record = budget.record
    data = {
        "budget": {
            "id": budget.id,
            "organization_id": budget.organization_id or None,
            "scope": record.scope,
            "subject": record.id,
            "model": record.model,
            "period": record.period,
            "alert_only": budget.terms.alert_only,
            "limit_nano_usd": record.limit,
            "limit_usd": nano_to_usd(record.limit),
        },
        "threshold_percent": threshold,
        "spent_nano_usd": spent,
        "spent_usd": nano_to_usd(spent),
        "period_began_at": begins or None,
    }
    return _event(BUDGET_THRESHOLD, data, now)


def test_event(endpoint_id: str, now: int) -> tuple[str, bytes]:
    return _event(TEST, {"webhook_endpoint_id": endpoint_id}, now)


def ended(event: str, id: str, now: int) -> tuple[str, bytes]:
    """Says which one has ended and how; whoever hears it fetches the rest with a key."""
    return _event(event, {"id": id}, now)


def tell_ended(connection: Connection, project_id: str, noun: str, id: str, status: str, now_ns: int) -> None:
    """The project's endpoints and its organization's, in the transaction in which it ends. `noun`: batch | response."""
    event = f"{noun}.{status}"
    for endpoint in endpoints.of_project(connection, project_id, event):
        event_id, body = ended(event, id, now_ns // 1_000_000_000)
        deliveries.put(connection, f"{event_id}_{endpoint.id}", endpoint.id, event, endpoint.url, body, now_ns=now_ns)


def _event(kind: str, data: dict[str, Any], now: int) -> tuple[str, bytes]:
    event_id = new_id("evt")
    return event_id, _ENCODE({"id": event_id, "object": "event", "type": kind, "created_at": now, "data": data})
