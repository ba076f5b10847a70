"""Invoices: each charge on exactly one, numbers without gaps, months in UTC, and nothing that was issued changes."""

import asyncio
import calendar
import csv
import io
import itertools
import json
import re
import zlib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tokenworks.control.ledger import accounts, corrections, documents, invoicing, months
from tokenworks.control.ledger.accounts import Account, Kind
from tokenworks.control.ledger.corrections import Wish
from tokenworks.control.ledger.lines import Group, lines
from tokenworks.control.storage import billing, invoices, ledger, proofs, tenants
from tokenworks.control.storage.attempts import AttemptWriter
from tokenworks.control.storage.billing import Profile
from tokenworks.control.storage.ledger import Sold, Transaction
from tokenworks.control.storage.tables import prices
from tokenworks.core.errors import InvalidRequest
from tokenworks.core.price import Price, When
from tokenworks.core.usage import KINDS, Usage
from tokenworks.journal.records import Opened, Settled, UsageRecord

pytestmark = pytest.mark.both_databases
PRICE = Price(
    {"input": 150_000_000, "cached_input": 75_000_000, "output": 600_000_000},
    [When({"input": Fraction(1, 2), "output": Fraction(1, 2)}, tier="batch")],
    id="price_1",
)
LONG = Price({"input": 1_000_000, "output": 3_000_001}, [When({"input": Fraction(2)}, above=1000)], id="long")
STATED = {
    "id": "price_1",
    "side": "price",
    "subject": "m",
    "starts": 0,
    "rates": PRICE.rates,
    "conditions": [{"tier": "batch", "factors": {"input": [1, 2], "output": [1, 2]}}],
    "source": "test",
    "created_at": 0,
}
"""The same as a row of the price book."""
CENT = 10**7
NUMBERS = itertools.count()


def moment(month, day=1, hour=0):
    year, number = map(int, month.split("-"))
    return calendar.timegm((year, number, day, hour, 0, 0))


class Books:
    """The book of one organization in a test's database."""

    def __init__(self, database, organization_id, project_id):
        self.database, self.id, self.project = database, organization_id, project_id

    @classmethod
    async def make(cls, database, name="ACME"):
        async with database.write() as connection:
            if await tenants.is_empty(connection):
                await tenants.create_organization(connection, "Tokens & Söhne", 1)
                await connection.execute(prices.insert().values(**STATED))
            made = await tenants.create_project(connection, *(await cls._organization(connection, name)), 2)
        return cls(database, made.organization_id, made.id)

    @staticmethod
    async def _organization(connection, name):
        first = await tenants.create_organization(connection, name, 2)
        return first.organization_id, "shop"

    async def do(self, function, *given):
        return await self.database.write_batch(lambda connection: function(connection, *given))

    async def use(self, at, usage=None, charge=None, *, key="key_a", model="m", price="price_1", batch=False):
        usage = usage or Usage(input=1000, output=100)
        charge = PRICE.charge(usage, "batch" if batch else "") if charge is None else charge
        name = f"req_{self.id}_{next(NUMBERS)}"
        who = (key, self.project, self.id, "proto", model, "up", "provider", "um", False, batch)
        ended = Settled(name, 1, at * 10**9 + 1, "completed", UsageRecord.of(usage), charge, price=price)
        records = [Opened(name, 1, at * 10**9, *who), ended]
        await self.do(AttemptWriter(self.database.dialect).write, records)
        return name, charge

    async def post(self, kind, moved, key, **more):
        await self.do(ledger.post, Transaction(self.id, kind, moved, 1, key, **more))

    async def issue(self, month, now=None):
        now = months.span(month)[1] + 86400 if now is None else now
        return [each for each, _ in await self.do(invoicing.issue, self.id, month, now, "tester")]

    async def balances(self):
        return await self.do(ledger.balances, self.id)


def with_books(with_database, work, **more):
    async def whole(database):
        await work(await Books.make(database, **more))
        assert (await database.write_batch(proofs.check))["differences"] == []

    with_database(whole)


def test_a_golden_invoice(with_database):
    """What the page docs/billing.md explains."""

    async def work(books):
        address = {"name": "ACME GmbH", "lines": ["Hauptstr. 1", "10115 Berlin"], "tax_id": "DE 123"}
        await books.do(billing.put, Profile(books.id, tax_basis_points=1900, address=address))
        await books.post(Kind.GRANT, accounts.grant(5 * 10**9), "welcome")
        await books.use(moment("2026-10", 1), Usage(input=8_000_000, cached_input=4_000_000, output=10_000_000))
        await books.use(moment("2026-10", 31, 23), Usage(input=1, output=1), batch=True)
        await books.use(moment("2026-11", 1), Usage(input=1_000_000))
        [issued] = await books.issue("2026-10")
        assert issued.number == "INV-2026-000001"
        shown = {name: issued.document[name] for name in ("charged", "tax", "total", "paid_from_balance", "due")}
        assert {name: amount["usd"] for name, amount in shown.items()} == {
            "charged": "7.500000375",
            "tax": "1.425000071",
            "total": "8.925000446",
            "paid_from_balance": "5.005000446",
            "due": "3.92",
        }
        told = [
            (line["kind"], line["quantity"], line["usd_per_million"], line["amount_usd"], line["tier"])
            for line in issued.document["lines"]
        ]
        assert told == [
            ("input", 8_000_000, "0.15", "1.2", "standard"),
            ("cached_input", 4_000_000, "0.075", "0.3", "standard"),
            ("output", 10_000_000, "0.6", "6", "standard"),
            ("input", 1, "0.075", "0.000000075", "batch"),
            ("output", 1, "0.3", "0.0000003", "batch"),
        ]
        balances = await books.balances()
        assert balances.owned(Account.RECEIVABLE) == 392 * CENT
        assert balances.owed(Account.TAX) == 1_425_000_071
        page = (Path(__file__).parents[3] / "docs" / "billing.md").read_text()
        for amount in (*(line[3] for line in told), *(amount["usd"] for amount in shown.values())):
            assert amount in page or amount == shown["paid_from_balance"]["usd"], f"docs/billing.md lacks {amount}"
        left = balances.owed(Account.CREDIT)
        assert left == -150_000_000 - 5_000_446, "what was used since, and the rest of a cent"
        files = {form: documents.render(issued.document, form, None) for form in documents.FORMS}
        rows = list(csv.DictReader(io.StringIO(files["csv"].content.decode(), newline="")))
        assert [row["amount_usd"] for row in rows[-3:]] == ["1.425000071", "8.925000446", "3.92"]
        assert sum(int(row["amount_nano_usd"]) for row in rows[:-3]) == issued.charged
        assert files["pdf"].name == "INV-2026-000001.pdf"
        assert files["pdf"].content == documents.render(issued.document, "pdf", None).content, "the same bytes"
        page = words(files["pdf"].content)
        for said in (
            "INV-2026-000001",
            "ACME GmbH",
            "Tokens & Söhne",
            "DE 123",
            "8,000,000",
            "0.075",
            "Tax 19 %",
            "3.92",
        ):
            assert said in page, said

    with_books(with_database, work)


def words(pdf):
    """The text of its pages."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    text = b""
    for stream in streams:
        try:
            text += zlib.decompress(stream)
        except zlib.error:
            text += stream
    return text.replace(b"\\(", b"(").replace(b"\\)", b")").decode("cp1252", "replace")


def test_a_month_ends_with_its_last_second_in_utc(with_database):
    async def work(books):
        end = months.span("2028-02")[1]
        assert end == moment("2028-03")
        assert moment("2028-02", 29, 23) < end
        await books.use(end - 1, charge=5)
        await books.use(end, charge=7)
        assert [each.charged for each in await books.issue("2028-02")] == [5]
        assert [each.charged for each in await books.issue("2028-03")] == [7]

    with_books(with_database, work)


@pytest.mark.parametrize("month", ["2026-13", "2026-00", "2026", "26-01", "2026-1", "2026-011", "x", "", "0000-01"])
def test_months_that_are_none(month):
    with pytest.raises(ValueError, match="is no month"):
        months.span(month)


def test_a_month_that_has_not_ended_is_a_draft(with_database):
    async def work(books):
        await books.use(moment("2026-11", 2), charge=CENT)
        with pytest.raises(InvalidRequest, match="has not ended"):
            await books.issue("2026-11", moment("2026-11", 30))
        draft = await books.do(invoicing.draft, books.id, "2026-11", moment("2026-11", 30))
        assert (draft["number"], draft["status"], draft["due"]["nano_usd"]) == (None, "draft", CENT)
        assert (await books.balances()).owed(Account.CREDIT) == -CENT, "nothing was posted"

    with_books(with_database, work)


def test_what_comes_late_is_on_the_next_invoice_and_the_first_stays(with_database):
    async def work(books):
        await books.use(moment("2026-09", 5), Usage(input=1_000_000), key="key_a")
        await books.use(moment("2026-10", 5), Usage(output=1_000_000), key="key_a")
        first = (await books.issue("2026-09"))[0]
        await books.use(moment("2026-09", 6), Usage(input=2_000_000), key="key_a")
        await books.use(moment("2026-09", 6), Usage(input=4_000_000), key="key_b")
        second = (await books.issue("2026-10"))[0]
        told = [
            (line["month"], line["key_id"], line["kind"], line["quantity"], line["amount_usd"])
            for line in second.document["lines"]
        ]
        assert told == [
            ("2026-09", "key_a", "input", 2_000_000, "0.3"),
            ("2026-09", "key_b", "input", 4_000_000, "0.6"),
            ("2026-10", "key_a", "output", 1_000_000, "0.6"),
        ]
        assert await books.do(invoices.find, first.number) == first
        assert first.charged + second.charged == (await books.balances()).charged
        await books.use(moment("2026-10", 7), charge=3)
        [third] = await books.issue("2026-12")
        assert (third.month, third.charged) == ("2026-12", 3), "late, and nothing else in the months since"

    with_books(with_database, work)


def test_months_are_issued_in_order_once_and_only_where_there_was_something(with_database):
    async def work(books):
        for month in ("2026-07", "2026-09"):
            await books.use(moment(month, 3), charge=CENT)
        issued = await books.issue("2026-10")
        assert [(each.month, each.number) for each in issued] == [
            ("2026-07", "INV-2026-000001"),
            ("2026-09", "INV-2026-000002"),
        ]
        assert await books.issue("2026-10") == []
        assert await books.issue("2026-09") == issued[1:]
        assert (await books.balances()).owned(Account.RECEIVABLE) == 2 * CENT

    with_books(with_database, work)


@pytest.mark.parametrize("statement", ["UPDATE invoices SET total = 0", "DELETE FROM invoices"])
def test_what_was_issued_stays(with_database, statement):
    async def work(books):
        await books.use(moment("2026-07", 3), charge=CENT)
        await books.issue("2026-07")
        with pytest.raises(DBAPIError, match="append-only"):
            async with books.database.write() as connection:
                await connection.execute(text(statement))

    with_books(with_database, work)


def test_a_number_that_was_not_used_is_not_lost(with_database):
    async def work(books):
        await books.use(moment("2026-07", 3), charge=CENT)

        def fail(connection):
            invoicing.issue(connection, books.id, "2026-07", moment("2026-08"), "tester")
            raise RuntimeError("died before the commit")

        with pytest.raises(RuntimeError):
            await books.do(fail)
        assert [each.number for each in await books.issue("2026-07")] == ["INV-2026-000001"]

    with_books(with_database, work)


def test_refunds_before_the_invoice_are_on_it_and_after_it_are_credit_notes(with_database):
    async def work(books):
        await books.do(billing.put, Profile(books.id, tax_basis_points=1000))
        await books.use(moment("2026-07", 3), charge=10 * 10**9)
        sold = Sold(books.project, "key_a", "m", moment("2026-07", 3))
        await books.post(Kind.REFUND, accounts.refund(10**9), "r", memo="slow", reference="req_1", sold=sold)
        [invoice] = await books.issue("2026-07")
        assert (invoice.charged, invoice.refunded, invoice.due) == (10 * 10**9, 10**9, 9_900_000_000)
        assert [each["request_id"] for each in invoice.document["refunds"]] == ["req_1"]
        wish = Wish(2 * 10**9, "wrong price", "note 1", "tester", moment("2026-08", 9) * 10**9)
        note = (await books.do(corrections.credit, invoice, wish)).note
        assert not (await books.do(corrections.credit, invoice, wish)).new
        assert (note.number, note.corrects, note.total) == ("CN-2026-000001", invoice.number, 2_200_000_000)
        assert await books.do(invoices.open_amount, books.id, invoice.number) == 7_700_000_000
        await books.post(Kind.PAYMENT, accounts.payment(7_700_000_000), "bank", reference=invoice.number)
        assert await books.do(invoices.open_amount, books.id, invoice.number) == 0
        await books.do(corrections.credit, invoice, replace(wish, key="note 2", amount=None))
        balances = await books.balances()
        assert (balances.owed(Account.CREDIT), balances.owed(Account.TAX)) == (7_700_000_000, 0)
        with pytest.raises(InvalidRequest, match="0 USD are left"):
            await books.do(corrections.credit, invoice, replace(wish, key="note 3", amount=1))
        page = words(documents.render(note.document, "pdf", None).content)
        assert "Credit note CN-2026-000001" in page
        assert "wrong price" in page
        assert b"-2.2" in documents.render(note.document, "csv", None).content

    with_books(with_database, work)


def test_names_that_would_be_formulas_and_names_in_other_scripts(with_database):
    async def work(books):
        async with books.database.write() as connection:
            await tenants.rename_project(connection, books.project, "=1+2 株式会社")
        await books.use(moment("2026-07", 3), charge=CENT)
        [issued] = await books.issue("2026-07")
        assert "'=1+2 株式会社" in documents.render(issued.document, "csv", None).content.decode()
        assert "=1+2 ????" in words(documents.render(issued.document, "pdf", None).content)
        assert json.loads(documents.as_json(issued.document))["lines"][0]["project"] == "=1+2 株式会社"

    with_books(with_database, work)


def test_hundreds_of_lines_take_several_pages(with_database):
    async def work(books):
        for number in range(40):
            await books.use(moment("2026-07", 3), key=f"key_{number:03d}")
        [issued] = await books.issue("2026-07")
        page = words(documents.render(issued.document, "pdf", None).content)
        assert "Page 2 of" in page
        assert len(issued.document["lines"]) == 80

    with_books(with_database, work)


_counts = st.integers(0, 3000)


@given(
    st.lists(st.tuples(_counts, _counts, _counts, _counts, _counts), min_size=1, max_size=5),
    st.sampled_from([PRICE, LONG]),
    st.booleans(),
)
def test_lines_divide_a_charge_exactly(attempts, price, batch):
    usages = [Usage(input=i, cached_input=c, output=o, reasoning=r, input_audio=a) for i, c, o, r, a in attempts]
    charge = sum(price.charge(usage, "batch" if batch else "") for usage in usages)
    counts = {kind: sum(getattr(usage, kind) for usage in usages) for kind in KINDS}
    group = Group("2026-01", "p", "k", "m", price.id, batch, "", len(usages), charge, counts)
    found = lines(group, price)
    assert sum(line.amount for line in found) == charge
    assert all(line.amount >= 0 for line in found)
    for line in found:
        if line.rate is not None:
            assert abs(line.amount - line.quantity * line.rate / 1_000_000) <= len(usages) + 1


def test_a_price_that_is_not_known_any_more_still_bills():
    [line] = lines(Group("2026-01", "p", "k", "m", "gone", False, "", 3, 77, {"input": 5}), None)
    assert (line.kind, line.quantity, line.rate, line.amount) == ("usage", 3, None, 77)


_MONTHS = [f"2026-{number:02d}" for number in range(1, 6)]
_steps = st.one_of(
    st.tuples(st.just("use"), st.sampled_from(_MONTHS), st.integers(0, 3 * CENT), st.sampled_from(("key_a", "key_b"))),
    st.tuples(st.just("issue"), st.sampled_from(_MONTHS)),
    st.tuples(st.just("topup"), st.integers(1, 5 * CENT)),
)


def test_every_charge_is_on_exactly_one_invoice(with_database, backend):
    """Whatever is used, comes late and is issued in whatever order."""

    async def history(database, steps):
        books = await Books.make(database)
        for step in [*steps, ("issue", "2026-06")]:
            if step[0] == "use":
                await books.use(moment(step[1], 4), charge=step[2], key=step[3])
            elif step[0] == "topup":
                await books.post(Kind.TOPUP, accounts.topup(step[1]), f"top{next(NUMBERS)}")
            else:
                await books.issue(step[1])
        summaries = await books.do(invoices.every, books.id)
        issued = [await books.do(invoices.find, each.number) for each in summaries]
        balances = await books.balances()
        assert sum(each.charged for each in issued) == balances.charged
        for each in issued:
            assert sum(line["amount_nano_usd"] for line in each.document["lines"]) == each.charged
            assert each.due % CENT == 0
        assert balances.owned(Account.RECEIVABLE) == sum(each.due for each in issued)
        assert balances.owed(Account.CREDIT) > -CENT, "everything but the rest of a cent is paid or asked for"
        return [int(each.number[-6:]) for each in issued]

    async def work(database):
        loop, numbers = asyncio.get_running_loop(), []

        @settings(max_examples=30 if backend == "sqlite" else 8, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(_steps, max_size=10))
        def check(steps):
            numbers.extend(asyncio.run_coroutine_threadsafe(history(database, steps), loop).result())

        await asyncio.to_thread(check)
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), "no gap, over all organizations"
        assert (await database.write_batch(proofs.check))["differences"] == []

    with_database(work)


def test_answers_from_a_cache_are_requests_at_what_they_were_charged() -> None:
    hits = Group("2026-01", "proj_1", "key_1", "m", "cache", False, "", 4, 40, {"priced_requests": 4})
    assert [(each.quantity, each.unit, each.amount) for each in lines(hits, None)] == [(4, "request", 40)]
    assert lines(replace(hits, charge=0), None) == []
