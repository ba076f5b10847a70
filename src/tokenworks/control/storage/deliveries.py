"""Webhooks that wait to be delivered."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.keys import new_id
from tokenworks.control.storage.tables import webhook_deliveries

_OWN = webhook_deliveries.c


@dataclass(frozen=True, slots=True)
class Delivery:
    """`answer_id`: those of one are delivered in order. `project_id`: whose secret signs it, a project's or a webhook
    endpoint's."""

    id: str
    answer_id: str
    project_id: str
    event: str
    url: str
    body: bytes
    attempts: int


_COLUMNS = tuple(_OWN[name] for name in Delivery.__slots__)


async def add(
    connection: AsyncConnection,
    answer_id: str,
    project_id: str,
    events: Sequence[str],
    url: str,
    body: bytes,
    *,
    now_ns: int,
) -> None:
    for event in events:
        await connection.run_sync(put, answer_id, project_id, event, url, body, now_ns=now_ns)


def put(
    connection: Connection, answer_id: str, project_id: str, event: str, url: str, body: bytes, *, now_ns: int
) -> None:
    number = select(func.coalesce(func.max(_OWN.number), 0) + 1).where(_OWN.answer_id == answer_id)
    connection.execute(
        insert(webhook_deliveries).values(
            id=new_id("msg"),
            answer_id=answer_id,
            project_id=project_id,
            number=number.scalar_subquery(),
            event=event,
            url=url,
            body=body,
            due_ns=now_ns,
        )
    )


async def due(connection: AsyncConnection, now_ns: int, limit: int) -> list[Delivery]:
    """Of each answer only the first that waits: its later ones tell what came after it."""
    earlier = webhook_deliveries.alias()
    first = ~select(earlier.c.id).where(earlier.c.answer_id == _OWN.answer_id, earlier.c.number < _OWN.number).exists()
    query = select(*_COLUMNS).where(_OWN.due_ns <= now_ns, first).order_by(_OWN.due_ns).limit(limit)
    return [Delivery(*row) for row in await connection.execute(query)]


async def postpone(connection: AsyncConnection, id: str, due_ns: int) -> None:
    values = {"attempts": _OWN.attempts + 1, "due_ns": due_ns}
    await connection.execute(update(webhook_deliveries).where(_OWN.id == id).values(values))


async def remove(connection: AsyncConnection, id: str) -> None:
    await connection.execute(delete(webhook_deliveries).where(_OWN.id == id))


async def redirect(connection: AsyncConnection, endpoint_id: str, url: str) -> None:
    """What waits for an endpoint goes to its new address."""
    await connection.execute(update(webhook_deliveries).where(_OWN.project_id == endpoint_id).values(url=url))


async def forget(connection: AsyncConnection, endpoint_id: str) -> None:
    """What waits for an endpoint that is gone."""
    await connection.execute(delete(webhook_deliveries).where(_OWN.project_id == endpoint_id))
