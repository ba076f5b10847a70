"""Receipts: what each attempt took and who paid, readable by whom it concerns, and provably unchanged."""

import copy
import itertools
import json

import pytest

from tokenworks import receipts
from tokenworks.journal.records import UsageRecord

pytestmark = pytest.mark.both_databases
NUMBERS = itertools.count()


@pytest.fixture
def tenant(running):
    made = running.admin("POST", "/admin/v1/organizations", {"name": "customer"}).json
    return {"id": made["id"], "project": made["project_id"], "key": made["admin_key"]}


@pytest.fixture
def request_id(running, tenant):
    """One that failed at one provider, which charges us for it, and was answered by the next."""
    name = f"req_receipt{next(NUMBERS)}"
    common = {"project_id": tenant["project"], "key_id": "key_r"}
    failed = {"attempt": 1, "outcome": "failed", "status": 502, "error": "upstream_broken", "provider": "first"}
    running.charge(name, tenant["id"], 0, cost=40, cost_price="cost_1", **failed, **common)
    usage = UsageRecord(input=7, cached_input=3, output=5)
    answered = {"attempt": 2, "usage": usage, "price": "price_9", "provider": "second", "finish_reason": "stop"}
    answered["residency"] = "proj_1: region=eu-west"
    running.charge(name, tenant["id"], 1000, cost=600, reported=UsageRecord(input=10, output=5), **answered, **common)
    return name


def read(running, name, key):
    answer = running.call("GET", f"/v1/receipts/{name}", token=key)
    assert answer.status == 200, answer.raw
    return answer.json


def test_a_receipt_tells_each_attempt_and_who_paid(running, tenant, request_id):
    found = read(running, request_id, tenant["key"])
    assert (found["charge"]["nano_usd"], found["refunded"]["nano_usd"], found["final"]) == (1000, 0, True)
    first, second = found["attempts"]
    assert (first["outcome"], first["error"], first["paid_by"]) == ("failed", "upstream_broken", "operator")
    assert (first["charge"]["nano_usd"], first["lines"]) == (0, [])
    assert (second["outcome"], second["paid_by"], second["price"]) == ("completed", "customer", "price_9")
    assert second["usage"] == {"input": 7, "cached_input": 3, "output": 5}
    assert second["reported"] == {"input": 10, "output": 5}
    assert sum(line["amount_nano_usd"] for line in second["lines"]) == 1000
    assert second["ledger_transaction"] is not None
    assert [each["residency"] for each in found["attempts"]] == [None, "proj_1: region=eu-west"]
    used = running.call("GET", "/admin/v1/usage", token=tenant["key"]).json["data"]
    assert {each["attempt"]: each["residency"] for each in used if each["request_id"] == request_id} == {
        1: None,
        2: "proj_1: region=eu-west",
    }
    proof = running.call("GET", f"/admin/v1/billing/transactions/{second['ledger_transaction']}", token=tenant["key"])
    assert request_id in [each["request_id"] for each in proof.json["data"]]
    assert b"cost" not in running.call("GET", f"/v1/receipts/{request_id}", token=tenant["key"]).raw
    assert [each["cost"]["nano_usd"] for each in read_as_operator(running, request_id)["attempts"]] == [40, 600]


def read_as_operator(running, name):
    return running.admin("GET", f"/v1/receipts/{name}").json


def test_a_refund_is_on_it(running, tenant, request_id):
    wish = {"request_id": request_id, "amount_usd": "0.0000004", "reason": "slow"}
    path = f"/admin/v1/billing/refunds?organization_id={tenant['id']}"
    assert running.admin("POST", path, wish).status == 200
    assert read(running, request_id, tenant["key"])["refunded"]["nano_usd"] == 400


def test_it_is_signed_and_every_change_shows(running, tenant, request_id):
    keys = running.call("GET", "/v1/receipts/keys").json
    found = read(running, request_id, tenant["key"])
    assert receipts.verify(found, keys) == keys["keys"][0]["kid"]
    assert receipts.verify(json.loads(json.dumps(found, indent=4, sort_keys=True)), keys), "however it is written"
    for change in (
        lambda it: it["charge"].update(nano_usd=1),
        lambda it: it["attempts"].pop(),
        lambda it: it.update(more=1),
        lambda it: it["signature"].update(value="A" * 86),
        lambda it: it["signature"].update(value="ö"),
        lambda it: it["signature"].update(key_id="rk_other"),
        lambda it: it["signature"].update(algorithm="none"),
        lambda it: it.pop("signature"),
    ):
        changed = copy.deepcopy(found)
        change(changed)
        with pytest.raises(receipts.NotSigned):
            receipts.verify(changed, keys)
    with pytest.raises(receipts.NotSigned, match="not among those published"):
        receipts.verify(found, {"keys": []})


def test_whose_receipts_a_key_reads(running, tenant, request_id):
    other = running.admin("POST", "/admin/v1/organizations", {"name": "other"}).json["admin_key"]
    answer = running.call("GET", f"/v1/receipts/{request_id}", token=other)
    assert (answer.status, answer.error["code"]) == (404, "receipt_not_found")
    assert running.call("GET", f"/v1/receipts/{request_id}").status == 401
    for project, status in ((tenant["project"], 200), ("proj_other", 404)):
        headers = {"x-tokenworks-project": project, "x-tokenworks-key": "key_r"}
        path = f"/internal/v1/objects/v1/receipts/{request_id}"
        assert running.call("GET", path, None, running.token, headers).status == status
        assert running.call("GET", path, None, tenant["key"], headers).status == 401


def test_an_attempt_under_way_is_not_final(running, tenant):
    name = f"req_receipt{next(NUMBERS)}"
    running.charge(name, tenant["id"], 5, project_id=tenant["project"], opened_only=True)
    found = read(running, name, tenant["key"])
    assert (found["final"], found["attempts"][0]["outcome"], found["charge"]["nano_usd"]) == (False, "open", 0)
