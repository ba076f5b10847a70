"""Answers and their stream events: saved by whoever runs them, read and ended by their project, forgotten in time."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, case, delete, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.answers.records import LEASE_SECONDS, LONGEST_CHAIN, AnswerRecord, Events, Save, pack
from tokenworks.control.storage.tables import answer_events, answers

RETENTION_SECONDS = 30 * 24 * 3600
_NANO = 1_000_000_000
_LEASE_NS = int(LEASE_SECONDS * _NANO)
_RECORD = tuple(answers.c[name] for name in AnswerRecord.__struct_fields__)


async def find(connection: AsyncConnection, project_id: str, kind: str, id: str, now: int) -> AnswerRecord | None:
    """None also for another project's."""
    query = select(*_RECORD).where(answers.c.id == id, _of(project_id, kind), answers.c.expires_at > now)
    return _one((await connection.execute(query)).first())


async def locked(connection: AsyncConnection, project_id: str, kind: str, id: str) -> Row[Any] | None:
    """The whole row, which nobody else changes until the transaction ends."""
    query = select(answers).where(answers.c.id == id, _of(project_id, kind)).with_for_update()
    return (await connection.execute(query)).first()


async def create(connection: AsyncConnection, id: str, save: Save, now_ns: int) -> None:
    hook = save.webhook
    await connection.execute(
        insert(answers).values(
            id=id,
            kind=save.kind,
            project_id=save.project_id,
            model=save.model,
            status=save.status,
            ended=save.ended,
            created_ns=now_ns,
            created_at=save.created_at,
            expires_at=now_ns // _NANO + RETENTION_SECONDS,
            leased_until_ns=None if save.ended else now_ns + _LEASE_NS,
            previous_id=save.previous_id,
            body=save.body,
            input=save.input,
            webhook_url=None if hook is None else hook.url,
            webhook_events=None if hook is None else list(hook.events),
        )
    )
    await _append(connection, id, 0, save.events)


async def change(connection: AsyncConnection, id: str, known_events: int, save: Save, now_ns: int) -> None:
    """What it is now, and another lease unless it has ended."""
    await connection.execute(
        update(answers)
        .where(answers.c.id == id)
        .values(
            status=save.status,
            ended=save.ended,
            body=save.body,
            leased_until_ns=None if save.ended else now_ns + _LEASE_NS,
        )
    )
    await _append(connection, id, known_events, save.events)


async def end(connection: AsyncConnection, id: str, status: str, body: bytes) -> None:
    values = {"status": status, "body": body, "ended": True, "leased_until_ns": None}
    await connection.execute(update(answers).where(answers.c.id == id).values(values))


async def _append(connection: AsyncConnection, id: str, known: int, events: Events | None) -> None:
    """A save that is sent again brings events that are known; only what follows them is added."""
    if events is None or events.first > known or events.first + events.count <= known:
        return
    if events.first < known:
        events = pack(known, events.blocks()[known - events.first :])
    row = {"answer_id": id, "first": events.first, "count": events.count, "packed": events.packed}
    await connection.execute(insert(answer_events).values(row))
    await connection.execute(update(answers).where(answers.c.id == id).values(event_count=known + events.count))


async def events_from(connection: AsyncConnection, id: str, first: int) -> list[Events]:
    """The packs that hold event number `first` and all later ones."""
    own = answer_events.c
    query = select(own.first, own.count, own.packed).where(own.answer_id == id, own.first + own.count > first)
    return [Events(*row) for row in await connection.execute(query.order_by(own.first))]


async def chain(connection: AsyncConnection, project_id: str, kind: str, id: str, now: int) -> list[AnswerRecord]:
    """The answer and those before it, oldest first, at most LONGEST_CHAIN of them. The oldest one found still names
    a previous one when that is gone."""
    own = (*_RECORD, answers.c.expires_at)
    start = select(*own, literal(1).label("depth")).where(answers.c.id == id, _of(project_id, kind))
    newest = start.where(answers.c.expires_at > now).cte("chain", recursive=True)
    older = (
        select(*own, newest.c.depth + 1)
        .join(newest, answers.c.id == newest.c.previous_id)
        .where(_of(project_id, kind), answers.c.expires_at > now, newest.c.depth < LONGEST_CHAIN)
    )
    whole = newest.union_all(older)
    columns = [whole.c[column.name] for column in _RECORD]
    rows = await connection.execute(select(*columns).order_by(whole.c.depth.desc()))
    return [record for row in rows if (record := _one(row)) is not None]


async def page(
    connection: AsyncConnection,
    project_id: str,
    kind: str,
    now: int,
    limit: int,
    after: str | None,
    *,
    oldest_first: bool = False,
) -> list[AnswerRecord]:
    """Those that follow the answer `after`. Newest first unless said otherwise."""
    query = select(*_RECORD).where(_of(project_id, kind), answers.c.expires_at > now)
    moment, name = answers.c.created_ns, answers.c.id
    if after is not None:
        at = select(moment).where(name == after, _of(project_id, kind)).scalar_subquery()
        later = (moment > at) | ((moment == at) & (name > after))
        earlier = (moment < at) | ((moment == at) & (name < after))
        query = query.where(later if oldest_first else earlier)
    order = (moment, name) if oldest_first else (moment.desc(), name.desc())
    rows = await connection.execute(query.order_by(*order).limit(limit))
    return [record for row in rows if (record := _one(row)) is not None]


async def revise(connection: AsyncConnection, project_id: str, kind: str, id: str, body: bytes) -> bool:
    """Another body, where there is such an answer and it has ended."""
    mine = (answers.c.id == id) & _of(project_id, kind) & answers.c.ended.is_(True)
    return (await connection.execute(update(answers).where(mine).values(body=body))).rowcount == 1


async def remove(connection: AsyncConnection, project_id: str, kind: str, id: str) -> bool:
    gone = await connection.execute(delete(answers).where(answers.c.id == id, _of(project_id, kind)))
    return gone.rowcount > 0


async def remove_expired(connection: AsyncConnection, now: int, limit: int) -> int:
    old = select(answers.c.id).where(answers.c.expires_at <= now).limit(limit)
    return (await connection.execute(delete(answers).where(answers.c.id.in_(old)))).rowcount


async def abandoned(connection: AsyncConnection, now_ns: int, *, lock: bool = False) -> Sequence[Row[Any]]:
    """Rows whose lease ran out."""
    query = select(answers).where(answers.c.leased_until_ns < now_ns)
    return (await connection.execute(query.with_for_update() if lock else query)).all()


async def renew_all(connection: AsyncConnection, now_ns: int) -> None:
    """After a time in which nobody could save."""
    least = now_ns + _LEASE_NS
    renewed = case((answers.c.leased_until_ns < least, least), else_=answers.c.leased_until_ns)
    running = answers.c.leased_until_ns.is_not(None)
    await connection.execute(update(answers).where(running).values(leased_until_ns=renewed))


def _of(project_id: str, kind: str) -> Any:
    return (answers.c.project_id == project_id) & (answers.c.kind == kind)


def _one(row: Row[Any] | None) -> AnswerRecord | None:
    return None if row is None else AnswerRecord(**row._mapping)
