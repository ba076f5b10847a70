"""How batches and their results look to clients of either family. Pure."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from tokenworks.control.batches.rules import BATCH, WINDOW, request_id
from tokenworks.control.storage.batches import Batch

_ENCODE = msgspec.json.Encoder().encode
_UNEXECUTED = {
    "cancelled": ("batch_cancelled", "This request was not executed, because the batch was cancelled."),
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
}
_ENDED = {"completed": "completed_at", "failed": "failed_at", "expired": "expired_at", "cancelled": "cancelled_at"}


def batch(row: Batch) -> dict[str, Any]:
    """The `batch` object of `/v1/batches`."""
    ends = {name: row.ended_at if row.status == status else None for status, name in _ENDED.items()}
    ended = row.status in _ENDED
    return {
        "id": row.id,
        "object": BATCH,
        "endpoint": row.endpoint,
        "model": row.model,
        "errors": None if row.errors is None else {"object": "list", "data": row.errors},
        "input_file_id": row.input_file_id,
        "completion_window": WINDOW,
        "status": row.status,
        "output_file_id": row.output_file_id if ended else None,
        "error_file_id": row.error_file_id if ended else None,
        "created_at": row.created_ns // 1_000_000_000,
        "in_progress_at": row.in_progress_at,
        "expires_at": row.expires_at,
        "finalizing_at": row.finalizing_at,
        "cancelling_at": row.cancelling_at,
        **ends,
        "request_counts": {"total": row.total, "completed": row.completed, "failed": row.failed},
        "usage": _usage(row),
        "metadata": row.metadata,
    }


def _usage(row: Batch) -> dict[str, Any]:
    prompt = row.input + row.cached_input + row.cache_write
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": row.cached_input},
        "output_tokens": row.output,
        "output_tokens_details": {"reasoning_tokens": row.reasoning},
        "total_tokens": prompt + row.output,
    }


def message_batch(row: Batch, origin: str, archived_at: int | None) -> dict[str, Any]:
    """The `message_batch` object. Counts move only when everything has ended; `origin` is where the client came to."""
    ended = row.status in _ENDED
    rest = row.total - row.completed - row.failed if ended else 0
    counts = {
        "processing": 0 if ended else row.total,
        "succeeded": row.completed if ended else 0,
        "errored": row.failed if ended else 0,
        "canceled": rest if row.outcome == "cancelled" else 0,
        "expired": rest if row.outcome == "expired" else 0,
    }
    if row.status == "failed":
        counts["errored"] = row.total
    available = ended and row.output_file_id is not None and archived_at is None
    return {
        "id": row.id,
        "type": row.object,
        "processing_status": "ended" if ended else "canceling" if row.status == "cancelling" else "in_progress",
        "request_counts": counts,
        "created_at": _rfc3339(row.created_ns // 1_000_000_000),
        "expires_at": _rfc3339(row.expires_at),
        "ended_at": _rfc3339(row.ended_at),
        "cancel_initiated_at": _rfc3339(row.cancelling_at),
        "archived_at": _rfc3339(archived_at),
        "results_url": f"{origin}/v1/messages/batches/{row.id}/results" if available else None,
    }


def output_line(of: Batch, line: Any) -> bytes:
    """A line of an output or error file. `line`: number, custom_id, state, status, body."""
    request = request_id(of.id, of.created_ns, line.number).encode()
    head = b'{"id":"batch_req_%s","custom_id":%s,' % (request, _ENCODE(line.custom_id))
    if line.status:
        answer = b'"response":{"status_code":%d,"request_id":"%s","body":%s},"error":null}\n'
        return head + answer % (line.status, request, line.body)
    if line.state == "done":
        code, message = "request_failed", line.body.decode()
    else:
        code, message = _UNEXECUTED[of.outcome]
    return head + b'"response":null,"error":%s}\n' % _ENCODE({"code": code, "message": message})


def message_result(of: Batch, line: Any) -> bytes:
    """A line of a message batch's results."""
    if line.state != "done":
        result = b'{"type":"%s"}' % (b"canceled" if of.outcome == "cancelled" else b"expired")
    elif 200 <= line.status < 300:
        result = b'{"type":"succeeded","message":%s}' % line.body
    elif line.status:
        result = b'{"type":"errored","error":%s}' % line.body
    else:
        error = {"type": "api_error", "message": line.body.decode()}
        whole = {"type": "error", "error": error, "request_id": request_id(of.id, of.created_ns, line.number)}
        result = b'{"type":"errored","error":%s}' % _ENCODE(whole)
    return b'{"custom_id":%s,"result":%s}\n' % (_ENCODE(line.custom_id), result)


def _rfc3339(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
