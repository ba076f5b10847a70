"""What a version of a price charges stays as it was set, by whatever statement; it may only end earlier."""

import time

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tokenworks.control.pricing.entries import Entry, Subject, Terms
from tokenworks.control.storage import prices
from tokenworks.snapshot.records import WhenRecord

STATEMENTS = [
    'UPDATE prices SET rates = \'{"input": 1, "output": 1}\'',
    "UPDATE prices SET conditions = '[]'",
    "UPDATE prices SET starts = starts + 1",
    "UPDATE prices SET subject = 'other'",
    "UPDATE prices SET organization_id = 'org_2'",
    "UPDATE prices SET id = 'other'",
    "UPDATE prices SET ends = NULL",
    "UPDATE prices SET ends = ends + 1",
    "UPDATE prices SET ends = starts - 1",
    "DELETE FROM prices",
    "INSERT INTO prices SELECT * FROM prices WHERE true ON CONFLICT (id) DO UPDATE SET rates = '{}'",
]
OWN = {
    "sqlite": [
        "INSERT OR REPLACE INTO prices SELECT * FROM prices",
        "UPDATE OR REPLACE prices SET rates = '{}'",
    ],
    "postgresql": [
        "TRUNCATE prices",
        "MERGE INTO prices USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE",
    ],
}


def _price(starts, ends):
    terms = Terms({"input": 5, "output": 7}, (WhenRecord({"input": (1, 2)}, tier="batch"),))
    return Entry("price_1", Subject("price", "m"), terms, starts, ends, "a person", 0)


@pytest.mark.both_databases
def test_what_was_in_force_stands(with_database, backend):
    now = int(time.time())
    price = _price(now - 100, now + 100)

    async def work(database):
        async with database.write() as connection:
            await prices.add(connection, price)
        for statement in (*STATEMENTS, *OWN[backend]):
            with pytest.raises(DBAPIError, match="never changed"):
                async with database.write() as connection:
                    await connection.execute(text(statement.replace(":", r"\:")))
            async with database.read() as connection:
                assert await prices.every(connection) == [price], statement
        async with database.write() as connection:
            await prices.end(connection, price.id, now)
        async with database.read() as connection:
            assert (await prices.every(connection))[0].ends == now

    with_database(work)


@pytest.mark.both_databases
def test_what_never_came_into_force_may_be_taken_back(with_database):
    async def work(database):
        async with database.write() as connection:
            await prices.add(connection, _price(int(time.time()) + 1000, None))
            await prices.remove(connection, "price_1")
            assert await prices.every(connection) == []

    with_database(work)
