"""How an answer's body says that it was cancelled, or that its gateway died: the few members that change."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from tokenworks.answers.records import PREDICTION

_MEMBERS: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode

LOST = "The gateway that ran this was lost. Nothing is billed for what did not leave it; please try again."


def cancelled(kind: str, body: bytes, now: float) -> tuple[str, bytes]:
    """(status, body)"""
    if kind == PREDICTION:
        return "canceled", _changed(body, status="canceled", completed_at=_iso(now))
    return "cancelled", _changed(body, status="cancelled")


def lost(kind: str, body: bytes, now: float) -> tuple[str, bytes]:
    if kind == PREDICTION:
        return "failed", _changed(body, status="failed", error=LOST, completed_at=_iso(now))
    return "failed", _changed(body, status="failed", error={"code": "server_error", "message": LOST})


def _changed(body: bytes, **members: Any) -> bytes:
    return _ENCODE(_MEMBERS.decode(body) | members)


def _iso(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
