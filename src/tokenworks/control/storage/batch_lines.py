"""Lines of batches: put in by validation, leased to gateways, done once each. Every function runs in a transaction.

A result is taken while its line is not done and its batch still runs, or while the line is leased in a batch that is
about to end; so the lines of a batch that has no lease left and takes no more never change again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, bindparam, delete, exists, func, insert, or_, select, update
from sqlalchemy.engine import Connection

from tokenworks.batches.records import LEASE_SECONDS, LeaseCall, LineId, ResultRecord, ReturnedRecord
from tokenworks.control.storage.tables import BATCH_USAGE, api_keys, batch_lines, batches, organizations, projects

REST_SECONDS = (1, 60)
"""How long a batch rests whose model cannot answer: the first time, and the longest."""
BATCHES_PER_CALL = 16
LEASE_BYTES = 8 * 1024 * 1024
"""Of requests in one answer; a single line may be larger."""
_NANO = 1_000_000_000
_FREE = {"state": "waiting", "gateway_id": None, "leased_until_ns": None}


def clear(connection: Connection, batch_id: str) -> None:
    connection.execute(delete(batch_lines).where(batch_lines.c.batch_id == batch_id))


def start_over(connection: Connection, batch_id: str) -> bool:
    """Remove what an earlier check put in half-way. False, and nothing, when the batch is past its check."""
    unchecked = batches.c.in_progress_at.is_(None) & batches.c.status.in_(("validating", "cancelling"))
    query = select(batches.c.id).where(batches.c.id == batch_id, unchecked).with_for_update()
    if connection.execute(query).first() is None:
        return False
    clear(connection, batch_id)
    return True


def add(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    connection.execute(insert(batch_lines), list(rows))


def leased(connection: Connection, batch_id: str) -> int:
    query = select(func.count()).where(batch_lines.c.batch_id == batch_id, batch_lines.c.state == "leased")
    return connection.execute(query).scalar_one()


def release_expired(connection: Connection, batch_ids: Iterable[str], now_ns: int) -> int:
    """Lines whose gateway has not been heard of are free again."""
    statement = update(batch_lines).where(
        batch_lines.c.batch_id.in_(list(batch_ids)),
        batch_lines.c.state == "leased",
        batch_lines.c.leased_until_ns < now_ns,
    )
    return connection.execute(statement.values(_FREE)).rowcount


@dataclass(frozen=True, slots=True)
class Leased:
    """Rows of the line and of its batch, the latter with the key that runs it."""

    line: Row[Any]
    batch: Row[Any]


def take(connection: Connection, call: LeaseCall, now_ns: int) -> tuple[list[Leased], bool]:
    """One lease call. The lines that are leased by it, and whether a batch has come to its last step."""
    ended = _store(connection, call.results, now_ns) if call.results else False
    if call.returned:
        _give_back(connection, call.returned, now_ns)
    _renew(connection, call, now_ns)
    return (_lease(connection, call, now_ns) if call.n > 0 else []), ended


def give_up(connection: Connection, id: LineId, message: str, now_ns: int) -> None:
    """A line that cannot be run at all: its own result says so (status 0)."""
    _store(connection, (ResultRecord(*id, status=0, body=message.encode()),), now_ns)


def _store(connection: Connection, results: Sequence[ResultRecord], now_ns: int) -> bool:
    """Results of lines that have none yet, the counts of their batches with them."""
    ended = False
    for batch_id in dict.fromkeys(result.batch for result in results):
        status = connection.execute(select(batches.c.status).where(batches.c.id == batch_id).with_for_update()).scalar()
        takes = ("waiting", "leased") if status == "in_progress" else ("leased",)
        counts = dict.fromkeys(("completed", "failed", *BATCH_USAGE), 0)
        for result in results:
            if result.batch != batch_id:
                continue
            line = (batch_lines.c.batch_id == batch_id) & (batch_lines.c.number == result.number)
            done = {**_FREE, "state": "done", "status": result.status, "body": result.body}
            statement = update(batch_lines).where(line, batch_lines.c.state.in_(takes)).values(done)
            if connection.execute(statement).rowcount:
                counts["completed" if 200 <= result.status < 300 else "failed"] += 1
                for name in BATCH_USAGE:
                    counts[name] += getattr(result, name)
        if counts["completed"] or counts["failed"]:
            ended |= _count(connection, batch_id, counts, now_ns)
    return ended


def _count(connection: Connection, batch_id: str, counts: dict[str, int], now_ns: int) -> bool:
    sums = {name: batches.c[name] + count for name, count in counts.items() if count}
    connection.execute(update(batches).where(batches.c.id == batch_id).values(rests=0, **sums))
    all_done = batches.c.completed + batches.c.failed >= batches.c.total
    last = update(batches).where(batches.c.id == batch_id, batches.c.status == "in_progress", all_done)
    values = {"status": "finalizing", "outcome": "completed", "finalizing_at": now_ns // _NANO}
    return connection.execute(last.values(values)).rowcount == 1


def _give_back(connection: Connection, returned: Sequence[ReturnedRecord], now_ns: int) -> None:
    """Its model cannot answer now: the line waits, and the batch rests, each time twice as long."""
    for line in returned:
        here = (batch_lines.c.batch_id == line.batch) & (batch_lines.c.number == line.number)
        values = {**_FREE, "failures": batch_lines.c.failures + int(line.broke)}
        connection.execute(update(batch_lines).where(here, batch_lines.c.state == "leased").values(values))
    for batch_id in dict.fromkeys(line.batch for line in returned):
        one = batches.c.id == batch_id
        found = connection.execute(select(batches.c.rests, batches.c.rests_until_ns).where(one)).first()
        if found is not None and found.rests_until_ns <= now_ns:
            seconds = min(REST_SECONDS[0] * 2 ** min(found.rests, 10), REST_SECONDS[1])
            rest = {"rests": batches.c.rests + 1, "rests_until_ns": now_ns + seconds * _NANO}
            connection.execute(update(batches).where(one).values(rest))


def _renew(connection: Connection, call: LeaseCall, now_ns: int) -> None:
    """What the gateway still has is its own for longer; what it has forgotten is free."""
    mine = batch_lines.c.gateway_id == call.gateway_id
    query = select(batch_lines.c.batch_id, batch_lines.c.number).where(mine)
    held = {(row.batch_id, row.number) for row in connection.execute(query)}
    if not held:
        return
    until = now_ns + LEASE_SECONDS * _NANO
    connection.execute(update(batch_lines).where(mine).values(leased_until_ns=until))
    if forgotten := held - {(batch_id, number) for batch_id, number in call.holding}:
        _update_each(connection, forgotten, _FREE)


def _lease(connection: Connection, call: LeaseCall, now_ns: int) -> list[Leased]:
    """Batches take turns: the one that was served longest ago is served first."""
    found: list[Leased] = []
    room = LEASE_BYTES
    for batch in connection.execute(_ready(now_ns)).all():
        if len(found) >= call.n or room <= 0:
            break
        if batch.key_ended:
            _stop_for_key(connection, batch.id, now_ns)
            continue
        chosen: list[Leased] = []
        for line in connection.execute(_waiting(batch.id, call.n - len(found))).all():
            if line.length > room and (found or chosen):
                room = 0
                break
            room -= line.length
            chosen.append(Leased(line, batch))
        until = now_ns + LEASE_SECONDS * _NANO
        values = {"state": "leased", "gateway_id": call.gateway_id, "leased_until_ns": until}
        ids = [(leased.line.batch_id, leased.line.number) for leased in chosen]
        _update_each(connection, ids, {**values, "run": batch_lines.c.run + 1})
        connection.execute(update(batches).where(batches.c.id == batch.id).values(leased_ns=now_ns))
        found += chosen
    return found


def _ready(now_ns: int) -> Any:
    """Batches with a line to lease. `key_ended`: whether the key that made it is not valid any more."""
    key_ended = or_(
        api_keys.c.revoked_at.is_not(None),
        api_keys.c.expires_at <= now_ns // _NANO,
        projects.c.archived_at.is_not(None),
        organizations.c.archived_at.is_not(None),
    )
    waits = exists().where(batch_lines.c.batch_id == batches.c.id, batch_lines.c.state == "waiting")
    return (
        select(
            *(batches.c[name] for name in ("id", "endpoint", "input_file_id", "created_ns")),
            *(api_keys.c.digest.label("key_digest"), key_ended.label("key_ended")),
        )
        .join(api_keys, api_keys.c.id == batches.c.key_id)
        .join(projects, projects.c.id == batches.c.project_id)
        .join(organizations, organizations.c.id == projects.c.organization_id)
        .where(batches.c.status == "in_progress", batches.c.rests_until_ns <= now_ns)
        .where(batches.c.expires_at > now_ns // _NANO, waits)
        .order_by(batches.c.leased_ns, batches.c.created_ns, batches.c.id)
        .limit(BATCHES_PER_CALL)
        .with_for_update(of=batches, skip_locked=True)
    )


def _waiting(batch_id: str, limit: int) -> Any:
    names = ("batch_id", "number", "start", "length", "crc32", "run", "failures")
    return (
        select(*(batch_lines.c[name] for name in names))
        .where(batch_lines.c.batch_id == batch_id, batch_lines.c.state == "waiting")
        .order_by(batch_lines.c.number)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def _stop_for_key(connection: Connection, batch_id: str, now_ns: int) -> None:
    """A key that was revoked or has expired spends nothing more."""
    message = "The API key that made this batch was revoked or has expired."
    errors = [{"code": "key_revoked", "message": message, "param": None, "line": None}]
    now = now_ns // _NANO
    values = {"status": "cancelling", "outcome": "cancelled", "cancelling_at": now, "errors": errors}
    statement = update(batches).where(batches.c.id == batch_id, batches.c.status == "in_progress")
    connection.execute(statement.values(values))


def _update_each(connection: Connection, ids: Iterable[LineId], values: dict[str, Any]) -> None:
    here = (batch_lines.c.batch_id == bindparam("of")) & (batch_lines.c.number == bindparam("at"))
    parameters = [{"of": batch_id, "at": number} for batch_id, number in ids]
    if parameters:
        connection.execute(update(batch_lines).where(here).values(values), parameters)
