"""Balances and what moves them, through the API: exact amounts, idempotency, prepaid budgets, whose book it is."""

import itertools

import pytest

NUMBERS = itertools.count()
HOUR = 1_790_000_000 // 3600 * 3600


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
    assert entry["type"] == "billing.address"


def test_every_move_is_in_the_audit_log_and_the_check_finds_nothing(running, tenant):
    tenant.operator("grants", {"amount_usd": "5", "memo": "welcome"})
    entry = running.admin("GET", "/v1/organization/audit_logs?limit=1").json["data"][0]
    assert (entry["type"], entry["after"]["amount"]) == ("billing.grant", 5 * 10**9)
    found = running.admin("GET", "/admin/v1/billing/check").json
    assert found["differences"] == []
    assert found["transactions"] > 0
    assert running.admin("POST", "/admin/v1/billing/rebuild", {}).json["differences"] == []
