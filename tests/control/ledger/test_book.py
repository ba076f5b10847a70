"""Whatever is posted, in any order, again, and cut in any way: the book adds up, and nothing is in it twice."""

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from tokenworks.control.ledger import accounts
from tokenworks.control.ledger.accounts import Account, Kind
from tokenworks.control.storage import ledger, proofs
from tokenworks.control.storage.attempts import AttemptWriter
from tokenworks.control.storage.ledger import KeyReused, Transaction
from tokenworks.control.storage.ledger_tables import ledger_entries, ledger_transactions
from tokenworks.control.storage.tables import usage
from tokenworks.journal.records import Opened, Progress, Settled, UsageRecord

pytestmark = pytest.mark.both_databases

AMOUNT = st.integers(1, 10**12)
KEYS = st.sampled_from(["k1", "k2", "k3", "k4"])
HOUR_NS = 3600 * 10**9
EXAMPLES, STEPS = {"sqlite": 40, "postgresql": 12}, 15
MOVES = {
    Kind.GRANT: accounts.grant,
    Kind.TOPUP: accounts.topup,
    Kind.REFUND: accounts.refund,
    Kind.HOLD: accounts.hold,
    Kind.RELEASE: accounts.release,
    Kind.PAYOUT: accounts.payout,
    Kind.PAYMENT: accounts.payment,
    Kind.ADJUSTMENT: lambda amount: accounts.adjustment(-amount),
    Kind.INVOICE: lambda amount: accounts.invoice(amount // 10, amount),
    Kind.CREDIT_NOTE: lambda amount: accounts.credit_note(amount, amount // 10, amount // 2),
}


class Book(RuleBasedStateMachine):
    """`loop` and `database` are set by the test; each example has an organization of its own."""

    loop: asyncio.AbstractEventLoop
    database: Any
    numbers = itertools.count()

    def __init__(self):
        super().__init__()
        self.organization = f"org_{next(self.numbers)}"
        self.records = []
        self.charges = {}
        self.posted = {}

    def write(self, work):
        return asyncio.run_coroutine_threadsafe(self.database.write_batch(work), self.loop).result()

    def deliver(self, records):
        writer = AttemptWriter(self.database.dialect)
        self.write(lambda connection: writer.write(connection, records))

    @rule(
        names=st.tuples(*[st.sampled_from(pair) for pair in (("k1", "k2"), ("p1", "p2"), ("x", "y"))]),
        hour=st.integers(0, 2),
        ending=st.sampled_from(["completed", "cancelled", "failed", None]),
        charge=st.integers(0, 10**10),
        cost=st.integers(0, 10**9),
    )
    def attempt(self, names, hour, ending, charge, cost):
        """One that is under way or has ended; its records wait to be delivered."""
        key, project, model = names
        identity = (f"{self.organization}_{len(self.charges)}", 1)
        who = (key, project, self.organization, "proto", model, "up", "provider", "um")
        self.records.append(Opened(*identity, hour * HOUR_NS, *who))
        self.records.append(Progress(*identity, UsageRecord(output=1), 1, 1))
        charge = 0 if ending == "failed" else charge
        self.charges[identity] = None
        if ending is not None:
            self.charges[identity] = (charge, cost)
            self.records.append(Settled(*identity, hour * HOUR_NS + 9, ending, charge=charge, cost=cost))

    @rule(data=st.data())
    def deliver_some(self, data):
        """Any of the records so far, in any order, also again."""
        if self.records:
            self.deliver(data.draw(st.lists(st.sampled_from(self.records), min_size=1, max_size=8)))

    @rule(kind=st.sampled_from(list(MOVES)), amount=AMOUNT, key=KEYS)
    def post(self, kind, amount, key):
        wanted = Transaction(self.organization, kind, MOVES[kind](amount), 1, key)
        known = self.posted.get(key)
        if known is None:
            assert self.write(lambda connection: ledger.post(connection, wanted)).new
            self.posted[key] = wanted
        elif (known.kind, known.transfers) == (wanted.kind, wanted.transfers):
            assert not self.write(lambda connection: ledger.post(connection, wanted)).new
        else:
            with pytest.raises(KeyReused):
                self.write(lambda connection: ledger.post(connection, wanted))

    @rule(key=KEYS)
    def post_again(self, key):
        if known := self.posted.get(key):
            assert not self.write(lambda connection: ledger.post(connection, known)).new

    @invariant()
    def it_adds_up(self):
        self.write(self.adds_up)

    def adds_up(self, connection):
        summed = ledger.summed(connection, self.organization)
        assert ledger.kept(connection, self.organization) == summed
        assert sum(debits - out for debits, out in summed.values()) == 0
        expected = dict.fromkeys(Account, 0)
        for wanted in self.posted.values():
            for transfer in wanted.transfers:
                expected[transfer.debit] += transfer.amount
                expected[transfer.credit] -= transfer.amount
        query = select(usage).where(usage.c.organization_id == self.organization, usage.c.posting.is_not(None))
        ended = {(row.request_id, row.attempt): (row.charge, row.cost) for row in connection.execute(query)}
        assert ended.items() <= self.charges.items(), "an attempt was charged otherwise than it was settled"
        charged, spent = sum(charge for charge, _ in ended.values()), sum(cost for _, cost in ended.values())
        expected[Account.CREDIT] += charged
        expected[Account.REVENUE] -= charged
        expected[Account.PROVIDER_COST] += spent
        expected[Account.PAYABLE] -= spent
        balances = ledger.balances(connection, self.organization)
        assert {account: balances.owned(account) for account in Account} == expected
        assert balances.charged == charged
        self.proves_every_charge(connection, ended)

    def proves_every_charge(self, connection, ended):
        proven = []
        for row in ledger.some(connection, self.organization, 1000, None, kind=Kind.CHARGE):
            attempts = proofs.attempts(connection, row)
            charges = sum(each["charge"] for each in attempts)
            entries = ledger.entries(connection, self.organization, row.sequence)
            assert charges == sum(each.amount for each in entries if each.credit is Account.REVENUE)
            assert len(attempts) == row.attempts
            proven += [(each["request_id"], each["attempt"]) for each in attempts]
        assert len(proven) == len(set(proven))
        assert set(proven) >= {identity for identity, (charge, cost) in ended.items() if charge or cost}

    def teardown(self):
        """Everything is delivered in the end: all that ended is charged for."""
        for _ in range(2):
            if self.records:
                self.deliver(self.records)
        self.it_adds_up()
        assert self.write(proofs.check)["differences"] == []
        balances = self.write(lambda connection: ledger.balances(connection, self.organization))
        assert balances.charged == sum(each[0] for each in self.charges.values() if each)


def test_any_history_adds_up(with_database, backend):
    """The machine runs in a thread, the database in this loop."""

    async def work(database):
        Book.database, Book.loop = database, asyncio.get_running_loop()
        limits = settings(max_examples=EXAMPLES[backend], stateful_step_count=STEPS, deadline=None)
        await asyncio.to_thread(run_state_machine_as_test, Book, settings=limits)

    with_database(work)


CHANGES = ["UPDATE {} SET organization_id = 'x'", "DELETE FROM {}", "DELETE FROM {} WHERE 1 = 1"]


@pytest.mark.parametrize("table", ["ledger_transactions", "ledger_entries"])
@pytest.mark.parametrize("statement", CHANGES)
def test_what_was_posted_stays(with_database, table, statement):
    wanted = Transaction("org", Kind.GRANT, accounts.grant(5), 1, "key")

    async def work(database):
        await database.write_batch(lambda connection: ledger.post(connection, wanted))
        with pytest.raises(DBAPIError, match="append-only"):
            async with database.write() as connection:
                await connection.execute(text(statement.format(table)))
        async with database.read() as connection:
            rows = [
                len((await connection.execute(select(each))).all()) for each in (ledger_transactions, ledger_entries)
            ]
        assert rows == [1, 1]

    with_database(work)


def test_balances_can_be_made_anew(with_database):
    wanted = Transaction("org", Kind.GRANT, accounts.grant(5), 1, "key")

    async def work(database):
        await database.write_batch(lambda connection: ledger.post(connection, wanted))
        async with database.write() as connection:
            await connection.execute(text("UPDATE ledger_balances SET credits = credits + 1 WHERE account = 'credit'"))
        found = (await database.write_batch(proofs.check))["differences"]
        assert found == ["org: credit is kept as (0, 6) (debits, credits), its entries are (0, 5)"]
        await database.write_batch(ledger.rebuild)
        assert await database.write_batch(proofs.check) == {"organizations": 1, "transactions": 1, "differences": []}

    with_database(work)


def test_the_check_sees_usage_that_was_not_charged(with_database):
    async def work(database):
        writer = AttemptWriter(database.dialect)
        who = ("k", "p", "org", "proto", "m", "up", "provider", "um")
        records = [Opened("r", 1, 1, *who), Settled("r", 1, 2, "completed", charge=7)]
        await database.write_batch(lambda connection: writer.write(connection, records))
        async with database.write() as connection:
            await connection.execute(text("UPDATE usage_hourly SET charge = 8"))
        found = (await database.write_batch(proofs.check))["differences"]
        assert found == ["org: 7 nano-dollars are charged, its usage is 8"]

    with_database(work)
