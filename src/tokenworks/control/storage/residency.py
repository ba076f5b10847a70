"""Residency policies of projects and organizations, by the id of whose they are."""

from typing import Any

from sqlalchemy import Row, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tokenworks.control.storage.tables import residency
from tokenworks.snapshot.records import ResidencyRecord

_COLUMNS = (
    residency.c.id,
    residency.c.regions,
    residency.c.jurisdictions,
    residency.c.retention,
    residency.c.no_training,
)


async def put(connection: AsyncConnection, organization_id: str, policy: ResidencyRecord) -> None:
    """In place of the one that there was."""
    await remove(connection, policy.id)
    await connection.execute(
        insert(residency).values(
            id=policy.id,
            organization_id=organization_id,
            regions=policy.regions,
            jurisdictions=policy.jurisdictions,
            retention=policy.retention,
            no_training=policy.no_training,
        )
    )


async def find(connection: AsyncConnection, id: str) -> ResidencyRecord | None:
    row = (await connection.execute(select(*_COLUMNS).where(residency.c.id == id))).first()
    return None if row is None else _record(row)


async def remove(connection: AsyncConnection, id: str) -> None:
    await connection.execute(delete(residency).where(residency.c.id == id))


async def every(connection: AsyncConnection) -> list[ResidencyRecord]:
    return [_record(row) for row in await connection.execute(select(*_COLUMNS).order_by(residency.c.id))]


def _record(row: Row[*tuple[Any, ...]]) -> ResidencyRecord:
    subject, regions, jurisdictions, retention, no_training = row
    return ResidencyRecord(
        subject,
        None if regions is None else tuple(regions),
        None if jurisdictions is None else tuple(jurisdictions),
        retention,
        bool(no_training),
    )
