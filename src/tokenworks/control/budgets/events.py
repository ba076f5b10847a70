"""Events that webhook endpoints can hear of, as their bodies."""

from typing import Any

import msgspec

from tokenworks.control.keys import new_id
from tokenworks.control.storage.limits import Limit
from tokenworks.core.money import nano_to_usd

BUDGET_THRESHOLD = "budget.threshold_reached"
TEST = "webhook.test"
EVENTS = (BUDGET_THRESHOLD, TEST)
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


def _event(kind: str, data: dict[str, Any], now: int) -> tuple[str, bytes]:
    event_id = new_id("evt")
    return event_id, _ENCODE({"id": event_id, "type": kind, "created_at": now, "data": data})
