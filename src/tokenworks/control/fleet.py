"""The replicas that workers report, and what is known of each now.

A replica that has not been heard of for `SILENCE` seconds is failed, counted from our own start for those that
an earlier life of this process knew. It stays listed while its model is configured, so that people see why it
does not answer.
"""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from tokenworks.control.storage import fleet
from tokenworks.control.storage.database import Database
from tokenworks.control.storage.fleet import Replica

SILENCE = 5.0
_SILENT = f"no heartbeat for {SILENCE:g} s"


@dataclass(slots=True)
class _Entry:
    replica: Replica
    heard: float
    saved: Replica | None


class Fleet:
    """`changed` is called after every change that gateways must learn of, before it is written down: they need it
    even when the database cannot be written."""

    def __init__(self, database: Database, configured: Collection[str], changed: Callable[[], None]) -> None:
        self._database = database
        self._configured = configured
        self._changed = changed
        self._entries: dict[str, _Entry] = {}

    @property
    def replicas(self) -> list[Replica]:
        return [entry.replica for entry in self._entries.values()]

    def silence(self, id: str) -> float:
        """Seconds since the replica was heard of."""
        return time.monotonic() - self._entries[id].heard

    async def load(self) -> None:
        now = time.monotonic()
        async with self._database.read() as connection:
            known = await fleet.every_replica(connection)
        self._entries = {replica.id: _Entry(replica, now, replica) for replica in known}

    async def heartbeat(self, replica: Replica) -> None:
        entry = self._entries.get(replica.id)
        if entry is None:
            entry = self._entries[replica.id] = _Entry(replica, time.monotonic(), None)
            self._changed()
        entry.heard = time.monotonic()
        if entry.replica != replica:
            entry.replica = replica
            self._changed()
        await self._save([entry])

    async def leave(self, id: str) -> None:
        """Idempotent."""
        if self._entries.pop(id, None) is not None:
            self._changed()
        async with self._database.write() as connection:
            await fleet.delete_replica(connection, id)

    async def expire(self) -> None:
        """Fail the silent ones; forget those whose model nobody configured."""
        now = time.monotonic()
        silent = [entry for entry in self._entries.values() if now - entry.heard > SILENCE]
        failed = [entry for entry in silent if entry.replica.model in self._configured]
        failed = [entry for entry in failed if entry.replica.reason != _SILENT]
        for entry in failed:
            entry.replica = replace(entry.replica, state="failed", reason=_SILENT)
        if failed:
            self._changed()
            await self._save(failed)
        for entry in silent:
            if entry.replica.model not in self._configured:
                await self.leave(entry.replica.id)

    async def _save(self, entries: Iterable[_Entry]) -> None:
        unsaved = [(entry, entry.replica) for entry in entries if entry.saved != entry.replica]
        if not unsaved:
            return
        now = int(time.time())
        async with self._database.write() as connection:
            await fleet.model_dates(connection, [replica.model for _, replica in unsaved], now)
            for _, replica in unsaved:
                await fleet.save_replica(connection, replica, now)
        for entry, replica in unsaved:
            entry.saved = replica
