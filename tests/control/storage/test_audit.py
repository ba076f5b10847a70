"""Nothing changes or removes an entry of the audit log, by whatever statement."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tokenworks.control.access import Actor, Role, entry
from tokenworks.control.storage import audit

ACTOR = Actor("adminkey_1", "first", "org_1", Role.OWNER, None, None, "192.0.2.1", "req", "POST /x")
STATEMENTS = [
    "UPDATE audit_log SET action = 'nothing happened'",
    "UPDATE audit_log SET id = 'other'",
    "DELETE FROM audit_log",
    "DELETE FROM audit_log WHERE 1 = 1",
    "INSERT INTO audit_log SELECT * FROM audit_log WHERE true ON CONFLICT (id) DO UPDATE SET action = 'x'",
]
OWN = {
    "sqlite": [
        "INSERT OR REPLACE INTO audit_log SELECT * FROM audit_log",
        "REPLACE INTO audit_log (rowid, id, organization_id, at_ns, actor, actor_id, address, request_id, action,"
        " outcome, resource_id) SELECT rowid, 'new', '', 0, '{}', '', '', '', '', '', '' FROM audit_log",
        "UPDATE OR REPLACE audit_log SET action = 'x'",
    ],
    "postgresql": [
        "TRUNCATE audit_log",
        "WITH gone AS (DELETE FROM audit_log RETURNING *) SELECT count(*) FROM gone",
        "MERGE INTO audit_log USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE",
    ],
}


@pytest.mark.both_databases
def test_an_entry_stays_as_it_was_written(with_database, backend):
    async def work(database):
        written = entry(ACTOR, 5, "project.created", "proj_1", after={"name": "n"})
        async with database.write() as connection:
            await audit.append(connection, written)
        for statement in (*STATEMENTS, *OWN[backend]):
            with pytest.raises(DBAPIError, match="append-only"):
                async with database.write() as connection:
                    await connection.execute(text(statement))
            async with database.read() as connection:
                page = await audit.some(connection, "org_1", audit.Filter(), 10, None)
            assert page.data == [written], statement

    with_database(work)
