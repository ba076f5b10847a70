"""Indexes on big tables, made on PostgreSQL while everybody goes on reading and writing.

A migration's steps are one transaction, in which an index can only be made by locking writers out of the table. So a
migration that wants one on a table of `BIG` only declares it, as `INDEXES = (Index(...),)`. SQLite, which has one
process, makes it at once; on PostgreSQL it follows when the transaction is committed, each in a transaction of its own
and concurrently. Whoever is killed meanwhile leaves an invalid index, which the next start makes anew.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.database import Database

BIG = frozenset(
    {
        "usage", "usage_default", "usage_hourly", "usage_daily", "audit_log", "batch_lines", "answers",
        "answer_events", "files", "ledger_transactions", "ledger_entries", "webhook_deliveries",
    }
)  # fmt: skip
"""Tables that grow with traffic."""
LOCK_SECONDS = 10
"""So long a change of the schema waits for a table: everybody's queries queue behind it."""
_TURN = "SELECT pg_try_advisory_lock(8317002)"
_TURN_OVER = "SELECT pg_advisory_unlock(8317002)"
_AGAIN_SECONDS = 0.2
_STATE = text("SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass(:name)")
_IS_PARTITIONED = text("SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(:table)")
_WITHOUT = text(
    "SELECT c.relname FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid WHERE h.inhparent = to_regclass(:table) "
    "AND NOT EXISTS (SELECT 1 FROM pg_inherits p JOIN pg_index i ON i.indexrelid = p.inhrelid "
    "WHERE p.inhparent = to_regclass(:index) AND i.indrelid = c.oid) ORDER BY 1"
)
"""Partitions that have no part of this index. One that is attached later gets it from PostgreSQL itself."""


@dataclass(frozen=True, slots=True)
class Index:
    """`on`: the columns in brackets and what may follow, as "(opened_ns) WHERE NOT rolled"."""

    name: str
    table: str
    on: str

    def create(self, how: str = "") -> str:
        return f"CREATE INDEX {how}{self.name} ON {self.table} {self.on}"


async def build(database: Database, indexes: Iterable[Index]) -> None:
    """Makes those that are missing or were left half made; on PostgreSQL, where one process at a time does.

    DBAPIError when a table cannot be had within `LOCK_SECONDS`; the next start goes on.
    """
    wanted = list(indexes)
    connection = await database.dedicated()
    try:
        await connection.exec_driver_sql(f"SET lock_timeout = '{LOCK_SECONDS}s'")
        if all([await _valid(connection, index.name) for index in wanted]):
            return
        # Waiting for the lock would be a transaction that a concurrent index waits for: each for the other, for good.
        while not (await connection.exec_driver_sql(_TURN)).scalar():  # noqa: ASYNC110 -- the server tells nobody
            await asyncio.sleep(_AGAIN_SECONDS)
        try:
            for index in wanted:
                await _build(connection, index)
        finally:
            await connection.exec_driver_sql(_TURN_OVER)
    finally:
        await connection.exec_driver_sql("RESET lock_timeout")
        await connection.close()


async def _build(connection: AsyncConnection, index: Index) -> None:
    if not (await connection.execute(_IS_PARTITIONED, {"table": index.table})).scalar():
        await _concurrently(connection, index)
        return
    # A partitioned table takes no concurrent index: it gets an empty one, which is valid with the last partition's.
    if await _valid(connection, index.name) is None:
        await connection.exec_driver_sql(f"CREATE INDEX {index.name} ON ONLY {index.table} {index.on}")
    without = await connection.execute(_WITHOUT, {"table": index.table, "index": index.name})
    for partition in list(without.scalars()):
        part = Index(f"{partition}_{index.name}", partition, index.on)
        await _concurrently(connection, part)
        await connection.exec_driver_sql(f"ALTER INDEX {index.name} ATTACH PARTITION {part.name}")


async def _concurrently(connection: AsyncConnection, index: Index) -> None:
    valid = await _valid(connection, index.name)
    if valid is False:
        await connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY {index.name}")
    if not valid:
        await connection.exec_driver_sql(index.create("CONCURRENTLY "))


async def _valid(connection: AsyncConnection, name: str) -> bool | None:
    """None: there is none."""
    return (await connection.execute(_STATE, {"name": name})).scalar()
