"""Versions of aliases: nothing changes or removes one, by whatever statement; which of them are in force."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tokenworks.control.storage import aliases
from tokenworks.control.storage.aliases import Version

STATEMENTS = [
    "UPDATE alias_versions SET note = 'x'",
    "UPDATE alias_versions SET version = 9",
    "DELETE FROM alias_versions",
    "INSERT INTO alias_versions SELECT * FROM alias_versions WHERE true ON CONFLICT (name, version) "
    "DO UPDATE SET note = 'x'",
]
OWN = {
    "sqlite": [
        "INSERT OR REPLACE INTO alias_versions SELECT * FROM alias_versions",
        "UPDATE OR REPLACE alias_versions SET note = 'x'",
    ],
    "postgresql": ["TRUNCATE alias_versions"],
}


def version(name, number, definition, *, from_file=False):
    return Version(name, number, definition, from_file, "somebody", "", 1_000 + number)


@pytest.mark.both_databases
def test_a_version_stays_as_it_was_made(with_database, backend):
    async def work(database):
        made = [version("a", 1, {"to": "m"}, from_file=True), version("a", 2, {"to": {"m": 1}}), version("b", 1, None)]
        async with database.write() as connection:
            for each in made:
                await aliases.add(connection, each)
        for statement in (*STATEMENTS, *OWN[backend]):
            with pytest.raises(DBAPIError, match="append-only"):
                async with database.write() as connection:
                    await connection.execute(text(statement))
        async with database.read() as connection:
            assert await aliases.of(connection, "a", 10) == [made[1], made[0]]
            assert await aliases.of(connection, "a", 10, before=2) == [made[0]]
            assert await aliases.newest(connection) == {"a": made[1], "b": made[2]}
            assert await aliases.newest(connection, from_file=True) == {"a": made[0]}
            assert await aliases.dates(connection) == {"a": 1_001, "b": 1_001}
            assert await aliases.find(connection, "b", 2) is None
            assert await aliases.recent(connection, "a", "", 10, 1_000) == []
            assert await aliases.recent(connection, "a", "m", 10, 1_000) == []

    with_database(work)
