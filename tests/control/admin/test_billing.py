"""Balances and what moves them, through the API: exact amounts, idempotency, prepaid budgets, whose book it is."""

import itertools
import time

import pytest

pytestmark = pytest.mark.both_databases
NUMBERS = itertools.count()
HOUR = 1_790_000_000 // 3600 * 3600
# Control keeps real time: the month that ended last, and a moment in it.
LAST = time.strftime("%Y-%m", time.gmtime(time.time() - time.gmtime().tm_mday * 86400))
IN_LAST = int(time.time()) - time.gmtime().tm_mday * 86400
THIS = time.strftime("%Y-%m", time.gmtime())


@pytest.fixture(scope="module")
def running(control_process, database_options):
    with control_process(*database_options) as process:
        yield process


@pytest.fixture
def tenant(running):
    """A new organization."""
    made = running.admin("POST", "/admin/v1/organizations", {"name": "customer"}).json
    return Tenant(running, made)


class Tenant:
    def __init__(self, control, made):
        self.control = control
        self.id, self.project, self.key = made["id"], made["project_id"], made["admin_key"]

    def get(self, path):
        answer = self.control.call("GET", f"/admin/v1/billing/{path}", token=self.key)
        assert answer.status == 200, answer.raw
        return answer.json

    def operator(self, path, body, key=None, status=200):
        headers = {} if key is None else {"idempotency-key": key}
        path = f"/admin/v1/billing/{path}?organization_id={self.id}"
        answer = self.control.call("POST", path, body, self.control.bootstrap["admin_key"], headers)
        assert answer.status == status, answer.raw
        return answer.json

    def use(self, charge, cost=0, at=HOUR, model="m", key="key_a"):
        name = f"req_bill{next(NUMBERS)}"
        self.control.charge(
            name, self.id, charge, cost=cost, at=at * 10**9, model=model, key_id=key, project_id=self.project
        )
        return name

    def limits(self):
        query = f"?scope=organization&subject={self.id}&kind=spend_nano_usd"
        return self.control.admin("GET", f"/admin/v1/limits{query}").json["data"]


def test_grants_topups_charges_and_adjustments_make_the_balance(tenant):
    assert tenant.get("balance")["balance"] == {"nano_usd": 0, "usd": "0"}
    tenant.operator("grants", {"amount_usd": "5", "memo": "welcome"})
    tenant.operator("topups", {"amount_usd": "10.000000001", "reference": "SEPA 4711"})
    tenant.operator("adjustments", {"amount_usd": "-0.5", "memo": "typo"})
    tenant.use(250_000_000, cost=100_000_000)
    found = tenant.get("balance")
    assert found["balance"] == {"nano_usd": 14_250_000_001, "usd": "14.250000001"}
    assert (found["mode"], found["charged"]["usd"], found["receivable"]["usd"]) == ("postpaid", "0.25", "0")
    assert sum(each["nano_usd"] for each in found["accounts"].values()) == 0
    assert found["accounts"]["cash"]["usd"] == "10.000000001"
    page = tenant.get("transactions")
    assert [each["kind"] for each in page["data"]] == ["charge", "adjustment", "topup", "grant"]
    assert [each["amount"]["usd"] for each in page["data"]] == ["-0.25", "-0.5", "10.000000001", "5"]
    assert [each["sequence"] for each in page["data"]] == [4, 3, 2, 1]
    assert page["data"][2]["reference"] == "SEPA 4711"
    assert [each["kind"] for each in tenant.get("transactions?limit=2&after=3")["data"]] == ["topup", "grant"]
    assert [each["kind"] for each in tenant.get("transactions?kind=grant")["data"]] == ["grant"]


def test_a_charge_is_proven_by_its_attempts_and_our_cost_is_our_own_business(tenant):
    request = tenant.use(7, cost=3)
    [charge] = tenant.get("transactions")["data"]
    assert (charge["attempts"], charge["model"], charge["hour"]) == (1, "m", HOUR)
    assert [(each["debit"], each["credit"]) for each in charge["entries"]] == [("credit", "revenue")]
    proof = tenant.get("transactions/1")
    assert [(each["request_id"], each["charge"]["nano_usd"]) for each in proof["data"]] == [(request, 7)]
    path = f"/admin/v1/billing/transactions?organization_id={tenant.id}"
    entries = tenant.control.admin("GET", path).json["data"][0]["entries"]
    assert [each["amount"]["nano_usd"] for each in entries] == [7, 3]


def test_the_same_idempotency_key_posts_once(tenant):
    grant = {"amount_usd": "1", "memo": "m"}
    first, again = tenant.operator("grants", grant, "k"), tenant.operator("grants", grant, "k")
    assert (first["new"], again["new"], again["sequence"]) == (True, False, first["sequence"])
    assert again["balance"]["usd"] == "1"
    refused = tenant.operator("grants", {**grant, "amount_usd": "2"}, "k", status=400)
    assert refused["error"]["code"] == "idempotency_key_reused"
    assert tenant.operator("grants", grant)["balance"]["usd"] == "2", "without a key, twice is twice"


@pytest.mark.parametrize("amount", ["0", "-1", "0.0000000001", "1e30", "nan", "x", "", 5])
def test_amounts_that_are_none(tenant, amount):
    error = tenant.operator("grants", {"amount_usd": amount, "memo": "m"}, status=400)["error"]
    assert error["param"] == "amount_usd"


def test_a_hold_is_apart_until_it_is_released_once(tenant):
    tenant.operator("grants", {"amount_usd": "5", "memo": "m"})
    held = tenant.operator("holds", {"amount_usd": "2", "memo": "dispute"})
    found = tenant.get("balance")
    assert (found["balance"]["usd"], found["held"]["usd"]) == ("3", "2")
    for new in (True, False):
        released = tenant.operator(f"holds/{held['sequence']}/release", {})
        assert (released["new"], released["balance"]["usd"]) == (new, "5")
    tenant.operator("holds/1/release", {}, status=404)


def test_a_prepaid_balance_is_a_hard_budget_that_charges_do_not_move(tenant):
    tenant.use(1_000_000_000)
    assert tenant.limits() == []
    tenant.operator("grants", {"amount_usd": "5", "memo": "m"})
    assert tenant.operator("terms", {"mode": "prepaid"})["mode"] == "prepaid"
    [limit] = tenant.limits()
    assert (limit["limit"], limit["period"], limit["strict"]) == (5_000_000_000, "total", True), "1 used, 4 left"
    tenant.use(500_000_000)
    tenant.operator("topups", {"amount_usd": "2", "reference": "r"})
    [limit] = tenant.limits()
    assert limit["limit"] == 7_000_000_000, "1.5 used, 5.5 left"
    assert tenant.get("balance")["spendable"]["usd"] == "5.5"
    frame = tenant.control.internal("GET", f"/admin/v1/limits/{limit['id']}")
    assert frame.status == 401, "the internal token opens no admin path"
    denied = tenant.control.call("DELETE", f"/admin/v1/limits/{limit['id']}", token=tenant.key)
    assert denied.status == 403, "an organization cannot lift its own balance"
    tenant.operator("terms", {"mode": "postpaid"})
    assert tenant.limits() == []


def test_the_tax_to_come_is_not_spendable(tenant):
    tenant.operator("topups", {"amount_usd": "119", "reference": "r"})
    tenant.operator("terms", {"mode": "prepaid", "tax_basis_points": 1900})
    assert tenant.get("balance")["spendable"]["usd"] == "100"
    tenant.use(40_000_000_000)
    found = tenant.get("balance")
    assert (found["balance"]["usd"], found["spendable"]["usd"]) == ("79", "60")
    assert tenant.limits()[0]["limit"] == 100 * 10**9


def test_nobody_sees_or_moves_anothers_money(running, tenant):
    other = Tenant(running, running.admin("POST", "/admin/v1/organizations", {"name": "other"}).json)
    for path in ("balance", "transactions", "profile"):
        answer = running.call("GET", f"/admin/v1/billing/{path}?organization_id={tenant.id}", token=other.key)
        assert (answer.status, answer.error["code"]) == (404, "organization_not_found")
    grant = {"amount_usd": "5", "memo": "for me"}
    assert running.call("POST", "/admin/v1/billing/grants", grant, other.key).status == 403
    assert running.admin("GET", "/admin/v1/billing/balance?organization_id=org_none").status == 404


def test_an_address_is_set_by_the_customer_and_logged(running, tenant):
    address = {"name": "ACME GmbH", "lines": ["Hauptstr. 1", "10115 Berlin"], "tax_id": "DE123"}
    assert running.call("POST", "/admin/v1/billing/address", address, tenant.key).status == 200
    assert tenant.get("profile")["address"] == {**address, "email": None}
    assert running.call("POST", "/admin/v1/billing/address", {"name": "a\nb"}, tenant.key).error["param"] == "name"
    entry = running.call("GET", "/v1/organization/audit_logs?limit=1", token=tenant.key).json["data"][0]
    assert entry["type"] == "billing_address.updated"


def test_every_move_is_in_the_audit_log_and_the_check_finds_nothing(running, tenant):
    tenant.operator("grants", {"amount_usd": "5", "memo": "welcome"})
    entry = running.admin("GET", "/v1/organization/audit_logs?limit=1").json["data"][0]
    assert (entry["type"], entry["after"]["amount"]) == ("grant.posted", 5 * 10**9)
    found = running.admin("GET", "/admin/v1/billing/check").json
    assert found["differences"] == []
    assert found["transactions"] > 0
    assert running.admin("POST", "/admin/v1/billing/rebuild", {}).json["differences"] == []


def test_a_month_is_drafted_issued_and_paid(tenant):
    tenant.use(1_239_000_000, at=IN_LAST, key="key_b")
    tenant.use(5, at=int(time.time()))
    draft = tenant.get(f"invoices/draft?month={LAST}")
    assert (draft["number"], draft["due"]["usd"]) == (None, "1.23")
    assert tenant.get("invoices/draft")["month"] == THIS
    assert tenant.control.call("POST", "/admin/v1/billing/invoices", {"month": LAST}, tenant.key).status == 403
    [issued] = tenant.operator("invoices", {"month": LAST})["data"]
    assert (issued["new"], issued["due"]["usd"], issued["open"]["usd"]) == (True, "1.23", "1.23")
    [again] = tenant.operator("invoices", {"month": LAST})["data"]
    assert (again["new"], again["number"]) == (False, issued["number"])
    number = issued["number"]
    assert tenant.get(f"invoices/{number}")["charged"]["nano_usd"] == 1_239_000_000
    assert "groups" not in tenant.get(f"invoices/{number}")
    for form, begins in (("csv", b"number,month"), ("pdf", b"%PDF-")):
        path = f"/admin/v1/billing/invoices/{number}?format={form}"
        assert tenant.control.call("GET", path, token=tenant.key).raw.startswith(begins)
    assert tenant.operator(f"invoices/{number}/payments", {"amount_usd": "2", "reference": "r"}, status=400)
    paid = tenant.operator(f"invoices/{number}/payments", {"amount_usd": "1.23", "reference": "r"}, "bank 1")
    assert paid["open"]["usd"] == "0"
    assert tenant.operator(f"invoices/{number}/payments", {"amount_usd": "1.23", "reference": "r"}, "bank 1") == paid
    assert tenant.get("balance")["balance"]["nano_usd"] == -9_000_000 - 5
    assert [each["kind"] for each in tenant.get("transactions")["data"]] == ["payment", "invoice", "charge", "charge"]


def test_the_invoices_of_everybody_at_once(running, tenant):
    tenant.use(10**9, at=IN_LAST)
    other = Tenant(running, running.admin("POST", "/admin/v1/organizations", {"name": "other"}).json)
    other.use(10**9, at=IN_LAST)
    wish = {"month": LAST, "every_organization": True}
    made = running.admin("POST", "/admin/v1/billing/invoices", wish).json["data"]
    assert {tenant.id, other.id} <= {each["organization_id"] for each in made if each["new"]}
    numbers = sorted(int(each["number"][-6:]) for each in made)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    theirs = other.get("invoices")["data"][0]["number"]
    assert tenant.control.call("GET", f"/admin/v1/billing/invoices/{theirs}", token=tenant.key).status == 404


def test_a_request_is_given_back_once_before_and_after_its_invoice(tenant):
    early, late = tenant.use(10**9, at=IN_LAST), tenant.use(2 * 10**9, at=IN_LAST)
    wish = {"request_id": early, "amount_usd": "0.4", "reason": "slow"}
    first = tenant.operator("refunds", wish, "k")
    assert (first["kind"], first["credit_note"], first["balance"]["usd"]) == ("refund", None, "-2.6")
    assert tenant.operator("refunds", wish, "k") == {**first, "new": False}
    assert tenant.operator("refunds", {**wish, "amount_usd": "0.5"}, "k", status=400)["error"]["code"].endswith(
        "reused"
    )
    assert tenant.operator("refunds", {**wish, "amount_usd": "0.61"}, status=400)["error"]["param"] == "amount_usd"
    assert tenant.operator("refunds", {"request_id": early, "reason": "r"})["amount"]["usd"] == "0.6"
    tenant.operator("refunds", {"request_id": early, "reason": "r"}, status=400)
    [issued] = tenant.operator("invoices", {"month": LAST})["data"]
    assert (issued["total"]["usd"], issued["due"]["usd"]) == ("2", "2")
    wish = {"request_id": late, "reason": "wrong answer"}
    for new in (True, False):
        given = tenant.operator("refunds", wish, "again")
        assert (given["kind"], given["new"], given["amount"]["usd"]) == ("credit_note", new, "2")
    [note, invoice] = sorted(tenant.get("invoices")["data"], key=lambda each: each["kind"])
    assert (note["number"], note["corrects"]) == (given["credit_note"], invoice["number"])
    assert (invoice["open"]["usd"], tenant.get("balance")["balance"]["usd"]) == ("0", "0")
    assert tenant.get(f"invoices/{note['number']}")["request_id"] == late
    assert tenant.operator("refunds", {**wish, "request_id": "req_none"}, status=404)


@pytest.mark.parametrize(
    "body, param",
    [({"month": "2026-13"}, "month"), ({"month": THIS}, "month"), ({}, "month"), ({"month": LAST, "x": 1}, "x")],
)
def test_months_that_cannot_be_issued(tenant, body, param):
    assert tenant.operator("invoices", body, status=400)["error"]["param"] == param


def test_the_official_clients_costs_are_the_invoice(running, tenant):
    """What the costs API shows of a month is what the invoice charges."""
    for number in range(5):
        tenant.use(123_456_789 + number, at=IN_LAST - 86400 * (number % 2), model=f"m{number % 3}")
    [issued] = tenant.operator("invoices", {"month": LAST})["data"]
    document = tenant.get(f"invoices/{issued['number']}")
    period = document["period"]
    query = f"?start_time={period['start']}&end_time={period['end']}&limit=31&group_by=line_item"
    days = running.call("GET", f"/v1/organization/costs{query}", token=tenant.key).json["data"]
    by_model = {}
    for result in (result for day in days for result in day["results"]):
        known = by_model.get(result["line_item"], 0)
        by_model[result["line_item"]] = known + result["amount"]["nano_usd"]
    billed = {}
    for line in document["lines"]:
        billed[line["model"]] = billed.get(line["model"], 0) + line["amount_nano_usd"]
    assert billed == by_model
    assert sum(billed.values()) == document["charged"]["nano_usd"]
