"""What stands in the configuration file is the version in force after each start, and begins no version twice."""

import time
from itertools import pairwise

from tokenworks.control.offers import Offer
from tokenworks.control.pricing import book
from tokenworks.control.pricing.entries import Entry, Subject, Terms
from tokenworks.control.storage import prices

CHEAP, DEAR = {"input": 1, "output": 2}, {"input": 10, "output": 20}
MINE = Subject("price", "m")


def test_starts(with_database):
    """(at, what the file says of the price, versions so far, what is in force then)"""
    steps = (
        (10, CHEAP, 1, ("config", CHEAP)),
        (20, CHEAP, 1, ("config", CHEAP)),
        (30, DEAR, 2, ("config", DEAR)),
        (40, None, 2, None),
        (50, CHEAP, 3, ("config", CHEAP)),
    )

    async def work(database):
        for at, rates, count, expected in steps:
            async with database.write() as connection:
                await book.take_configuration(connection, {"m": Offer("m", price=rates)}, {"p/m": DEAR}, at)
                versions = await prices.of(connection, MINE)
                assert len(versions) == count
                found = [(each.source, each.terms.rates) for each in versions if each.in_force(at)]
                assert found == ([expected] if expected else [])
                assert all(a.ends <= b.starts for a, b in pairwise(versions))
                assert len(await prices.of(connection, Subject("cost", "p/m"))) == 1

    with_database(work)


def test_the_file_takes_over_from_the_book_and_leaves_what_is_not_its_own(with_database):
    now = int(time.time())  # the database looks at its own clock: only what is to come can be removed

    async def work(database):
        async with database.write() as connection:
            own = Subject("price", "m", "org")
            for subject, starts, ends in ((MINE, 0, now + 90), (MINE, now + 90, None), (own, 0, None)):
                entry = Entry(f"e{starts}{subject.organization_id}", subject, Terms(DEAR), starts, ends, "a person", 0)
                await prices.add(connection, entry)
            await book.take_configuration(connection, {"m": Offer("m", price=CHEAP)}, {}, now)
            first, mine = await prices.of(connection, MINE)
            assert (first.starts, first.ends, first.terms.rates) == (0, now, DEAR)
            assert (mine.starts, mine.ends, mine.terms.rates) == (now, None, CHEAP)
            assert (await prices.of(connection, own))[0].ends is None
            assert book.published(await prices.every(connection), now + 10**6).prices["m"][0].organization_id == "org"

    with_database(work)
