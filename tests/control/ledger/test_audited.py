"""Every route of the admin API that changes something leaves an entry in the audit log, under a name that says what.

A new route gets a line in STEPS: its call, a body, and the type of its entry.
"""

import re

import pytest

from tokenworks.control.admin import routes

CHANGING = {
    (min(route.methods), re.sub(":path}", "}", route.path))
    for router in (*routes.ROUTERS, *routes.PUBLIC)
    for route in router.routes
    if route.methods.isdisjoint({"GET", "HEAD"})
}
SILENT = {("POST", "/admin/v1/billing/reconciliations"), ("POST", "/admin/v1/aliases/{name}/try")}
"""What only reads."""
NAME = re.compile(
    r"[a-z_]+(\.[a-z_]+)?\.(created|updated|deleted|archived|added|rotated|sent|accepted|posted|issued|ended|imported"
    r"|rebuilt|tested|reported)"
)
CONFIG = """
[providers.acme]
protocol = "openai_chat"
base_url = "http://127.0.0.1:9/v1"
trains = false
[models.assistant]
targets = ["acme/m"]
price = {input = 1, output = 1}
"""
ORG, P, A = "/v1/organization", "/v1/organization/projects/{project}", "/admin/v1"
B = "/admin/v1/billing"
SPEND = {"currency": "USD", "interval": "month", "threshold_amount": 5}
RATES = {"input": "1", "output": "2"}
LIMIT = {"scope": "project", "subject": "{project}", "kind": "requests", "limit": 5, "window_seconds": 60}
BUDGET = {"scope": "project", "subject": "{project}", "limit_usd": "5", "period": "day"}
CHECKOUT = {"amount_usd": "25", "success_url": "https://me.example/ok", "cancel_url": "https://me.example/no"}
FILE = {"acme/m": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}}

# (call, body, the entry's type, {name for later: path in the answer})
STEPS = [
    (f"POST {ORG}/projects", {"name": "n"}, "project.created", {"project": "id"}),
    (f"POST {P}", {"name": "m"}, "project.updated", {}),
    (f"POST {ORG}/invites", {"email": "u@example.com", "role": "member"}, "invite.sent", {"token": "token"}),
    (f"POST {A}/invites/accept", {"token": "{token}", "name": "u"}, "user.added", {"user": "user_id"}),
    (f"POST {ORG}/users/{{user}}", {"role": "viewer"}, "user.updated", {}),
    (f"POST {P}/users", {"user_id": "{user}", "role": "member"}, "project.user.added", {}),
    (f"POST {P}/users/{{user}}", {"role": "owner"}, "project.user.updated", {}),
    (f"DELETE {P}/users/{{user}}", None, "project.user.deleted", {}),
    (f"DELETE {ORG}/users/{{user}}", None, "user.deleted", {}),
    (f"POST {ORG}/invites", {"email": "v@example.com", "role": "member"}, "invite.sent", {"invite": "id"}),
    (f"DELETE {ORG}/invites/{{invite}}", None, "invite.deleted", {}),
    (f"POST {ORG}/admin_api_keys", {"name": "n", "role": "viewer"}, "admin_api_key.created", {"admin": "id"}),
    (f"DELETE {ORG}/admin_api_keys/{{admin}}", None, "admin_api_key.deleted", {}),
    (f"POST {P}/service_accounts", {"name": "r"}, "service_account.created", {"account": "id"}),
    (f"POST {P}/service_accounts/{{account}}", {"name": "s"}, "service_account.updated", {}),
    (f"POST {P}/service_accounts/{{account}}/api_keys", {}, "api_key.created", {"key": "id"}),
    (f"POST {P}/api_keys/{{key}}", {"expires_in_seconds": 600}, "api_key.updated", {}),
    (f"DELETE {P}/api_keys/{{key}}", None, "api_key.deleted", {}),
    (f"DELETE {P}/service_accounts/{{account}}", None, "service_account.deleted", {}),
    (f"POST {P}/provider_keys", {"provider": "acme", "key": "sk-x"}, "provider_key.created", {"own": "id"}),
    (f"DELETE {P}/provider_keys/{{own}}", None, "provider_key.deleted", {}),
    (f"POST {P}/residency", {"no_training": True}, "residency.updated", {}),
    (f"DELETE {P}/residency", None, "residency.deleted", {}),
    (f"POST {P}/cache", {"seconds": 60}, "cache.updated", {}),
    (f"DELETE {P}/cache", None, "cache.deleted", {}),
    (f"POST {ORG}/residency", {"no_training": True}, "residency.updated", {}),
    (f"DELETE {ORG}/residency", None, "residency.deleted", {}),
    (f"POST {P}/rate_limits/rl-assistant", {"max_requests_per_1_minute": 5}, "rate_limit.updated", {}),
    (f"POST {P}/spend_limit", SPEND, "spend_limit.updated", {}),
    (f"DELETE {P}/spend_limit", None, "spend_limit.deleted", {}),
    (f"POST {ORG}/spend_limit", SPEND, "spend_limit.updated", {}),
    (f"DELETE {ORG}/spend_limit", None, "spend_limit.deleted", {}),
    (f"POST {A}/keys", {"name": "n", "project_id": "{project}"}, "api_key.created", {"key": "id"}),
    (f"POST {A}/keys/{{key}}", {"name": "m"}, "api_key.updated", {}),
    (f"POST {A}/keys/{{key}}/rotate", {}, "api_key.rotated", {}),
    (f"DELETE {A}/keys/{{key}}", None, "api_key.deleted", {}),
    (f"POST {A}/limits", LIMIT, "rate_limit.updated", {"limit": "id"}),
    (f"DELETE {A}/limits/{{limit}}", None, "rate_limit.deleted", {}),
    (f"POST {A}/budgets", BUDGET, "spend_limit.updated", {"budget": "id"}),
    (f"DELETE {A}/budgets/{{budget}}", None, "spend_limit.deleted", {}),
    (f"POST {A}/webhooks", {"url": "https://example.com"}, "webhook_endpoint.created", {"hook": "id"}),
    (f"POST {A}/webhooks/{{hook}}/test", None, "webhook_endpoint.tested", {}),
    (f"DELETE {A}/webhooks/{{hook}}", None, "webhook_endpoint.deleted", {}),
    (f"POST {A}/prices", {"subject": "other", "rates": RATES}, "price.created", {"price": "id"}),
    (f"DELETE {A}/prices/{{price}}", None, "price.ended", {}),
    (f"POST {A}/prices/import", {"document": FILE, "side": "cost", "source": "file"}, "price.imported", {}),
    (f"POST {A}/aliases/{{alias}}", {"definition": {"to": "assistant"}}, "alias.created", {}),
    (f"POST {A}/aliases/{{alias}}", {"definition": {"to": {"assistant": 1}}}, "alias.updated", {}),
    (f"POST {A}/aliases/{{alias}}/rollback", {"version": 1}, "alias.updated", {}),
    (f"DELETE {A}/aliases/{{alias}}", None, "alias.deleted", {}),
    (f"POST {A}/organizations", {"name": "n"}, "organization.created", {"organization": "id"}),
    (f"POST {A}/organizations/{{organization}}", {"name": "m"}, "organization.updated", {}),
    (f"POST {A}/organizations/{{organization}}/archive", {}, "organization.archived", {}),
    (f"POST {B}/address", {"name": "n", "lines": ["l"]}, "billing_address.updated", {}),
    (f"POST {B}/terms", {"tax_basis_points": 1900}, "billing_terms.updated", {}),
    (f"POST {B}/grants", {"amount_usd": "50", "memo": "m"}, "grant.posted", {}),
    (f"POST {B}/topups", {"amount_usd": "50", "reference": "r"}, "topup.posted", {}),
    (f"POST {B}/adjustments", {"amount_usd": "-1", "memo": "m"}, "adjustment.posted", {}),
    (f"POST {B}/holds", {"amount_usd": "1", "memo": "m"}, "hold.posted", {"hold": "sequence"}),
    (f"POST {B}/holds/{{hold}}/release", None, "release.posted", {}),
    (f"POST {B}/refunds", {"request_id": "{asked}", "reason": "m"}, "refund.posted", {}),
    (f"POST {B}/invoices", {"month": "2026-09"}, "invoice.issued", {"number": "data.0.number"}),
    (f"POST {B}/invoices/{{number}}/credit-notes", {"amount_usd": "1", "reason": "m"}, "credit_note.issued", {}),
    (f"POST {B}/invoices/{{number}}/payments", {"amount_usd": "1", "reference": "r"}, "payment.posted", {}),
    (f"POST {B}/checkouts", CHECKOUT, "checkout.created", {"payment": "id"}),
    ("POST /webhooks/payments", b"", "topup.posted", {}),
    (f"POST {B}/payments/{{payment}}/refund", {"amount_usd": "1"}, "hold.posted", {}),
    (f"POST {B}/usage-reports", None, "usage.reported", {}),
    (f"POST {B}/rebuild", None, "balances.rebuilt", {}),
    (f"POST {P}/archive", None, "project.archived", {}),
]


@pytest.fixture(scope="module")
def process(control_process, stripe_server, tmp_path_factory):
    config = tmp_path_factory.mktemp("audited") / "t.toml"
    config.write_text(CONFIG)
    environment = {"STRIPE_API_KEY": stripe_server.api_key, "STRIPE_WEBHOOK_SECRET": stripe_server.webhook_secret}
    options = ("--config", str(config), "--stripe-url", stripe_server.url, "--stripe-meter", "m")
    with control_process(*options, "--webhook-host", "example.com", environment=environment) as process:
        yield process


def test_every_change_is_on_record(process, stripe):
    names = {"asked": "req_1", "alias": "quick"}
    [organization] = process.admin("GET", "/admin/v1/organizations").json["data"]
    process.charge("req_1", organization["id"], 10**9)
    walked = set()
    for call, body, action, told in STEPS:
        method, template = call.split(" ")
        path = template.format(**names)
        if template.endswith("/invoices"):  # so that something is due
            process.charge("req_2", organization["id"], 200 * 10**9)
        before = _newest(process)
        if path == "/webhooks/payments":
            event = stripe.paid(list(stripe.answers.values())[-1])
            signed = {"stripe-signature": stripe.signature(event), "content-type": "application/json"}
            answer = process.call("POST", path, event, None, signed)
        else:
            answer = process.admin(method, path, _filled(body, names))
        assert answer.status < 300, (call, answer.raw)
        entries = _since(process, before)
        assert action in [each["type"] for each in entries], call
        for each in entries:
            assert NAME.fullmatch(each["type"]), each["type"]
            assert each["resource_id"], call
        names |= {name: _at(answer.json, place) for name, place in told.items()}
        walked.add((method, template))
    # By shape: what a path's parameters are called is nobody's business here.
    assert _shapes(walked | SILENT) == _shapes(CHANGING)


def _shapes(routes_):
    return {(method, re.sub(r"{[^}]*}|rl-assistant", "{}", path)) for method, path in routes_}


def _filled(body, names):
    if isinstance(body, dict):
        return {key: _filled(value, names) for key, value in body.items()}
    return body.format(**names) if isinstance(body, str) else body


def _at(document, place):
    for step in place.split("."):
        document = document[int(step) if step.isdigit() else step]
    return document


def _newest(process):
    found = process.admin("GET", "/v1/organization/audit_logs?limit=1").json["data"]
    return found[0]["id"] if found else None


def _since(process, newest):
    found = process.admin("GET", "/v1/organization/audit_logs?limit=20").json["data"]
    ids = [each["id"] for each in found]
    return found[: ids.index(newest)] if newest in ids else found
