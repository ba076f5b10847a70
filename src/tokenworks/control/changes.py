"""One admin change: a transaction that holds its audit entries too, and what gateways are told once it is committed.

Changes of this process follow one another, so that gateways hear of them in the order of their commits.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.access import Actor, entry
from tokenworks.control.services import Services
from tokenworks.control.storage import audit


class Change:
    def __init__(self, connection: AsyncConnection, actor: Actor, now_ns: int) -> None:
        self.connection = connection
        self.now = now_ns // 1_000_000_000
        self.announcements: list[Callable[[], None]] = []
        self._actor = actor
        self._now_ns = now_ns

    async def log(
        self,
        action: str,
        resource_id: str,
        *,
        project_id: str = "",
        before: dict[str, Any] | None = None,
        after: dict[str, Any] | None = None,
    ) -> None:
        written = entry(
            self._actor, self._now_ns, action, resource_id, project_id=project_id, before=before, after=after
        )
        await audit.append(self.connection, written)

    def announce(self, step: Callable[[], None]) -> None:
        """Called once the change is committed, before it is answered."""
        self.announcements.append(step)


@asynccontextmanager
async def changing(services: Services, actor: Actor) -> AsyncIterator[Change]:
    async with services.changes:
        async with services.database.write() as connection:
            change = Change(connection, actor, services.clock.now_ns())
            yield change
        for step in change.announcements:
            step()
