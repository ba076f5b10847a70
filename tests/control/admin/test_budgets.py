"""Budgets: what is spent of them, whom gateways and webhooks tell, and where their periods begin."""

import http.server
import itertools
import json
import queue
import threading
import time
from datetime import UTC, datetime

import pytest
from openai import OpenAI

from tokenworks.snapshot.records import SpendRecord

NUMBERS = itertools.count()
PATIENCE = 30.0
NANO = 1_000_000_000


class Receiver:
    """Takes webhooks on a port of its own; `heard` are (headers, body)."""

    def __init__(self):
        self.heard: queue.Queue = queue.Queue()
        self.refuse = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                refused = outer.refuse > 0
                outer.refuse -= refused
                self.send_response(503 if refused else 204)
                self.end_headers()
                if not refused:
                    outer.heard.put((dict(self.headers), body))

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def hooked(control_process):
    """A control that may call this machine."""
    with control_process("--webhook-host", "127.0.0.1", "--local-model", "smollm2-135m") as process:
        yield process


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def tenant(hooked):
    made = hooked.admin("POST", "/admin/v1/organizations", {"name": "spender"}).json

    def call(method, path, body=None, status=None):
        answer = hooked.call(method, path, body, made["admin_key"])
        assert answer.status == (status or (201 if method == "POST" else 200)), answer.raw
        return answer.json if status is None or status < 400 else answer.error

    call.id, call.project = made["id"], made["project_id"]
    return call


def spend(process, tenant, nano, at=None, model="m"):
    at_ns = int((time.time() if at is None else at) * NANO)
    process.charge(f"req_spend{next(NUMBERS)}", tenant.id, nano, at=at_ns, model=model, project_id=tenant.project)


def until(probe):
    deadline = time.monotonic() + PATIENCE
    while not (found := probe()):
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.05)
    return found


def wish(tenant, **changes):
    return {"scope": "organization", "subject": tenant.id, "period": "month", "limit_usd": "10", **changes}


def test_a_budget_tells_what_is_spent_and_is_enforced_by_gateways(hooked, tenant):
    made = tenant("POST", "/admin/v1/budgets", wish(tenant))
    assert (made["limit_usd"], made["spent_usd"], made["thresholds"]) == ("10", "0", [50, 80, 100])
    spend(hooked, tenant, 2_500_000_001)
    spend(hooked, tenant, 700, at=datetime(2020, 1, 1, tzinfo=UTC).timestamp())
    found = tenant("GET", f"/admin/v1/budgets/{made['id']}")
    assert (found["spent_nano_usd"], found["remaining_nano_usd"]) == (2_500_000_001, 7_499_999_999)
    began = datetime.fromtimestamp(found["period_began_at"], UTC)
    assert (began.day, began.hour, began.minute) == (1, 0, 0)
    name = f"organization\t{tenant.id}\t\tspend_nano_usd\t0\tmonth"
    wanted = SpendRecord(name, found["period_began_at"], 2_500_000_001)
    assert until(lambda: hooked.published().spends.get(name) == wanted)
    assert hooked.published().limits[name].limit == 10 * NANO
    assert tenant("GET", "/admin/v1/budgets")["data"] == [found]
    tenant("DELETE", f"/admin/v1/budgets/{made['id']}")
    assert until(lambda: name not in hooked.published().spends)


def test_a_budget_that_only_alerts_is_not_told_to_gateways(hooked, tenant):
    made = tenant("POST", "/admin/v1/budgets", wish(tenant, alert_only=True, limit_usd="0.000000005"))
    spend(hooked, tenant, 9)
    name = f"organization\t{tenant.id}\t\tspend_nano_usd\t0\tmonth"
    assert name not in hooked.published().limits
    found = until(lambda: (f := tenant("GET", f"/admin/v1/budgets/{made['id']}"))["thresholds_reached"] and f)
    assert (found["thresholds_reached"], found["remaining_nano_usd"]) == ([50, 80, 100], -4)
    tenant("POST", "/admin/v1/budgets", wish(tenant, alert_only=False))
    assert name in hooked.published().limits


def test_thresholds_fire_signed_webhooks_once_each(hooked, tenant, receiver):
    endpoint = tenant("POST", "/admin/v1/webhooks", {"url": receiver.url, "description": "finance"})
    assert endpoint["secret"].startswith("whsec_")
    budget = tenant("POST", "/admin/v1/budgets", wish(tenant, thresholds=[50, 90]))
    receiver.refuse = 1
    spend(hooked, tenant, 5 * NANO)
    headers, body = receiver.heard.get(timeout=PATIENCE)
    event = json.loads(body)
    assert OpenAI(api_key="x").webhooks.verify_signature(body, headers, secret=endpoint["secret"]) is None
    assert event["type"] == "budget.threshold_reached"
    assert event["data"]["budget"]["id"] == budget["id"]
    assert (event["data"]["threshold_percent"], event["data"]["spent_usd"]) == (50, "5")
    spend(hooked, tenant, 6 * NANO)
    assert json.loads(receiver.heard.get(timeout=PATIENCE)[1])["data"]["threshold_percent"] == 90
    spend(hooked, tenant, NANO)
    until(lambda: tenant("GET", f"/admin/v1/budgets/{budget['id']}")["spent_nano_usd"] == 12 * NANO)
    tenant("POST", f"/admin/v1/webhooks/{endpoint['id']}/test", status=202)
    assert json.loads(receiver.heard.get(timeout=PATIENCE)[1])["type"] == "webhook.test", "no threshold fired twice"
    assert receiver.heard.empty()


def test_the_operator_hears_of_models_and_providers(hooked, receiver):
    made = hooked.admin("POST", "/admin/v1/webhooks", {"url": receiver.url, "events": ["budget.threshold_reached"]})
    budget = {"scope": "model", "subject": "smollm2-135m", "period": "total", "limit_usd": "1", "thresholds": [1]}
    assert hooked.admin("POST", "/admin/v1/budgets", budget).status == 201
    customer = hooked.admin("POST", "/admin/v1/organizations", {"name": "c"}).json
    hooked.charge(f"req_spend{next(NUMBERS)}", customer["id"], NANO, at=time.time_ns(), model="smollm2-135m")
    data = json.loads(receiver.heard.get(timeout=PATIENCE)[1])["data"]
    assert (data["budget"]["scope"], data["budget"]["organization_id"]) == ("model", None)
    assert hooked.admin("DELETE", f"/admin/v1/webhooks/{made.json['id']}").json["deleted"]


def test_midnight_is_where_the_budget_says(hooked, tenant):
    """A day that began at 00:00 UTC+05:30, which is no full hour."""
    made = tenant("POST", "/admin/v1/budgets", wish(tenant, period="day", utc_offset_minutes=330))
    began = made["period_began_at"]
    assert datetime.fromtimestamp(began, UTC).strftime("%H:%M") == "18:30"
    assert made["period_ends_at"] == began + 86_400
    spend(hooked, tenant, 5, at=began - 1)
    spend(hooked, tenant, 7, at=began + 1)
    assert tenant("GET", f"/admin/v1/budgets/{made['id']}")["spent_nano_usd"] == 7


def test_endpoints_are_listed_without_their_secret_and_removed(tenant, receiver):
    made = tenant("POST", "/admin/v1/webhooks", {"url": receiver.url})
    listed = tenant("GET", "/admin/v1/webhooks")["data"]
    assert [each["id"] for each in listed] == [made["id"]]
    assert "secret" not in listed[0]
    tenant("DELETE", f"/admin/v1/webhooks/{made['id']}")
    assert tenant("GET", f"/admin/v1/webhooks/{made['id']}", status=404)["code"] == "webhook_endpoint_not_found"


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "http://localhost:1/", "ftp://example.com", "x"])
def test_a_webhook_may_not_reach_into_this_network(tenant, url):
    error = tenant("POST", "/admin/v1/webhooks", {"url": url}, status=400)
    assert error["param"] == "url"


@pytest.mark.parametrize(
    "change, param",
    [
        ({"limit_usd": "ten"}, "limit_usd"),
        ({"limit_usd": "-1"}, "limit_usd"),
        ({"limit_usd": "0.0000000001"}, "limit_usd"),
        ({"period": "year"}, "period"),
        ({"thresholds": [0]}, None),
        ({"utc_offset_minutes": 900}, "utc_offset_minutes"),
        ({"subject": "none"}, "subject"),
        ({"scope": "provider", "subject": "openai"}, None),
    ],
)
def test_bad_budgets_name_the_field(tenant, change, param):
    error = tenant("POST", "/admin/v1/budgets", wish(tenant, **change), status=403 if "scope" in change else 400)
    assert param is None or error["param"] == param, error
