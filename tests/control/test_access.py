"""Every admin route x every role: exactly what the table says, no route without an entry, every refusal on record."""

import json
import re

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from tokenworks.control.access import ALLOWED, Needs, Role
from tokenworks.control.admin import routes

ROUTES = [route for router in routes.ROUTERS for route in router.routes]

# What each role may do, said a second time and by hand: a slip in the table shows here.
EXPECTED = {
    "tenants.read": "operator owner admin member viewer billing",
    "projects.write": "operator owner admin",
    "keys.write": "operator owner admin member",
    "members.write": "operator owner admin",
    "limits.write": "operator owner admin",
    "webhooks.write": "operator owner admin",
    "spend.write": "operator owner billing",
    "usage.read": "operator owner admin member viewer billing",
    "costs.read": "operator owner admin viewer billing",
    "billing.read": "operator owner admin viewer billing",
    "billing.pay": "operator owner billing",
    "billing.write": "operator",
    "prices.read": "operator",
    "prices.write": "operator",
    "aliases.read": "operator",
    "aliases.write": "operator",
    "admin_keys.read": "operator owner admin",
    "admin_keys.write": "operator owner admin",
    "audit.read": "operator owner admin",
    "organizations.write": "operator",
}


def _permission(route: APIRoute) -> str:
    needed = [each.call.permission for each in route.dependant.dependencies if isinstance(each.call, Needs)]
    assert len(needed) == 1, f"{route.path} must declare what it needs, once"
    return needed[0]


def _name(route: APIRoute) -> str:
    return f"{min(route.methods)} {route.path}"


def test_the_table_is_as_it_should_be():
    assert {name: frozenset(roles.split()) for name, roles in EXPECTED.items()} == ALLOWED


def test_every_route_is_walked():
    app = FastAPI()
    for router in routes.ROUTERS:
        app.include_router(router)
    documented = {(method.upper(), path) for path, each in app.openapi()["paths"].items() for method in each}
    walked = {(min(route.methods), re.sub(":path}", "}", route.path)) for route in ROUTES}
    assert walked == documented
    assert len(walked) > 50


@pytest.fixture(scope="module")
def key_of(running):
    """An admin key of each role."""
    made = {}
    for role in Role:
        answer = running.admin("POST", "/v1/organization/admin_api_keys", {"name": f"walker {role}", "role": role})
        assert answer.status == 200, answer.raw
        made[role] = answer.json["value"]
    return made


@pytest.mark.parametrize("route", ROUTES, ids=_name)
def test_every_role_on_every_route(running, key_of, route):
    """Ids that do not exist: whoever is let in hears 4xx of another kind, or an empty answer."""
    permission = _permission(route)
    path = re.sub(r"{[^}]*}", "none", route.path)
    path += "?start_time=0&end_time=1" if route.path.endswith(("completions", "embeddings", "costs")) else ""
    method = min(route.methods)
    body = {} if method == "POST" else None
    for role, key in key_of.items():
        answer = running.call(method, path, body, key)
        if role in EXPECTED[permission].split():
            assert answer.status in (200, 400, 404), (role, answer.raw)
        else:
            assert answer.status == 403, (role, answer.raw)
            assert answer.error["code"] == "permission_denied"
            assert permission in answer.error["message"]


def test_a_refusal_is_in_the_audit_log(running, key_of):
    assert running.call("POST", "/v1/organization/projects", {"name": "x"}, key_of[Role.VIEWER]).status == 403
    entry = running.admin("GET", "/v1/organization/audit_logs?limit=1").json["data"][0]
    assert (entry["type"], entry["outcome"]) == ("access.refused", "refused")
    assert entry["resource_id"] == "POST /v1/organization/projects"
    assert entry["actor"]["api_key"]["role"] == "viewer"
    assert entry["actor"]["api_key"]["name"] == "walker viewer"


@pytest.mark.parametrize(
    "role, wanted, status",
    [
        ("owner", "operator", 403),
        ("owner", "owner", 200),
        ("admin", "owner", 403),
        ("admin", "operator", 403),
        ("admin", "admin", 200),
        ("admin", "billing", 200),
        ("admin", "reader", 200),
    ],
)
def test_nobody_gives_more_than_he_may(running, key_of, role, wanted, status):
    key = key_of[Role(role)]
    made = running.call("POST", "/v1/organization/admin_api_keys", {"name": "n", "role": wanted}, key)
    assert made.status == status, made.raw
    if wanted != "operator":
        invited = {"email": f"{role}-{wanted}@example.com", "role": wanted}
        assert running.call("POST", "/v1/organization/invites", invited, key).status == status


def test_an_admin_cannot_remove_an_owners_key(running, key_of):
    owners = running.admin("POST", "/v1/organization/admin_api_keys", {"name": "o", "role": "owner"}).json
    path = f"/v1/organization/admin_api_keys/{owners['id']}"
    assert running.call("DELETE", path, token=key_of[Role.ADMIN]).status == 403
    assert running.call("GET", "/v1/organization/projects", token=owners["value"]).status == 200
    assert running.admin("DELETE", path).status == 200
    assert running.call("GET", "/v1/organization/projects", token=owners["value"]).status == 401


def test_the_key_in_use_is_not_removed_by_itself(running):
    used = next(
        each
        for each in running.admin("GET", "/v1/organization/admin_api_keys?limit=100").json["data"]
        if each["name"] == "bootstrap"
    )
    assert used["last_used_at"] is not None
    assert running.admin("DELETE", f"/v1/organization/admin_api_keys/{used['id']}").error["code"] == "own_key"


def test_no_secret_is_in_the_audit_log(running):
    secrets = [
        running.admin("POST", "/v1/organization/admin_api_keys", {"name": "n", "role": "viewer"}).json["value"],
        running.admin("POST", "/admin/v1/keys", {"name": "n"}).json["key"],
        running.admin("POST", "/v1/organization/invites", {"email": "z@example.com", "role": "viewer"}).json["token"],
    ]
    log = json.dumps(running.admin("GET", "/v1/organization/audit_logs?limit=10").json)
    assert "admin_api_key.created" in log
    assert not any(secret in log for secret in secrets)
