"""What one organization has, another cannot see, change, or name."""

import pytest


@pytest.fixture(scope="module")
def other(running):
    """Another organization: an owner's admin key, and one of everything."""
    made = running.admin("POST", "/admin/v1/organizations", {"name": "other"})
    assert made.status == 201
    key, project = made.json["admin_key"], made.json["project_id"]

    def call(method, path, body=None):
        answer = running.call(method, path, body, key)
        assert answer.status < 300, answer.raw
        return answer.json

    account = call("POST", f"/v1/organization/projects/{project}/service_accounts", {"name": "robot"})
    limit = {"scope": "project", "subject": project, "kind": "requests", "limit": 5, "window_seconds": 60}
    return {
        "organization": made.json["id"],
        "project": project,
        "admin_key": key,
        "account": account["id"],
        "key": account["api_key"]["id"],
        "secret": account["api_key"]["value"],
        "limit": call("POST", "/admin/v1/limits", limit)["id"],
        "invite": call("POST", "/v1/organization/invites", {"email": "o@example.com", "role": "member"})["id"],
        "admin": call("GET", "/v1/organization/admin_api_keys")["data"][0]["id"],
    }


PATHS = [
    ("GET", "/v1/organization/projects/{project}", None),
    ("POST", "/v1/organization/projects/{project}", {"name": "mine"}),
    ("POST", "/v1/organization/projects/{project}/archive", {}),
    ("GET", "/v1/organization/projects/{project}/api_keys", None),
    ("GET", "/v1/organization/projects/{project}/api_keys/{key}", None),
    ("DELETE", "/v1/organization/projects/{project}/api_keys/{key}", None),
    ("GET", "/v1/organization/projects/{project}/provider_keys", None),
    ("POST", "/v1/organization/projects/{project}/provider_keys", {"provider": "x", "key": "y"}),
    ("DELETE", "/v1/organization/projects/{project}/provider_keys/pkey_1", None),
    ("GET", "/v1/organization/projects/{project}/cache", None),
    ("POST", "/v1/organization/projects/{project}/cache", {"seconds": 60}),
    ("DELETE", "/v1/organization/projects/{project}/cache", None),
    ("GET", "/v1/organization/projects/{project}/residency", None),
    ("POST", "/v1/organization/projects/{project}/residency", {"no_training": True}),
    ("DELETE", "/v1/organization/projects/{project}/residency", None),
    ("GET", "/v1/organization/projects/{project}/service_accounts", None),
    ("DELETE", "/v1/organization/projects/{project}/service_accounts/{account}", None),
    ("POST", "/v1/organization/projects/{project}/service_accounts/{account}/api_keys", {}),
    ("GET", "/v1/organization/projects/{project}/rate_limits", None),
    (
        "POST",
        "/v1/organization/projects/{project}/rate_limits/rl-smollm2-135m",
        {"max_requests_per_1_minute": 1},
    ),
    ("GET", "/v1/organization/projects/{project}/users", None),
    ("GET", "/v1/organization/projects/{project}/spend_limit", None),
    (
        "POST",
        "/v1/organization/projects/{project}/spend_limit",
        {"currency": "USD", "interval": "month", "threshold_amount": 1},
    ),
    ("GET", "/v1/organization/invites/{invite}", None),
    ("DELETE", "/v1/organization/invites/{invite}", None),
    ("GET", "/v1/organization/admin_api_keys/{admin}", None),
    ("DELETE", "/v1/organization/admin_api_keys/{admin}", None),
    ("GET", "/admin/v1/keys/{key}", None),
    ("POST", "/admin/v1/keys/{key}", {"name": "mine"}),
    ("POST", "/admin/v1/keys/{key}/rotate", {}),
    ("DELETE", "/admin/v1/keys/{key}", None),
    ("GET", "/admin/v1/limits/{limit}", None),
    ("DELETE", "/admin/v1/limits/{limit}", None),
]


@pytest.fixture(scope="module")
def stranger(running):
    """The owner of a third organization."""
    return running.admin("POST", "/admin/v1/organizations", {"name": "third"}).json["admin_key"]


@pytest.mark.parametrize("method, path, body", PATHS)
def test_it_is_not_found(running, other, stranger, method, path, body):
    answer = running.call(method, path.format(**other), body, stranger)
    assert answer.status == 404, answer.raw


@pytest.mark.parametrize(
    "path",
    [
        "/v1/organization/projects",
        "/v1/organization/users",
        "/v1/organization/invites",
        "/v1/organization/admin_api_keys",
        "/v1/organization/audit_logs",
        "/admin/v1/keys",
        "/admin/v1/limits",
    ],
)
def test_it_is_on_no_list(running, other, stranger, path):
    answer = running.call("GET", f"{path}?limit=100" if path != "/admin/v1/keys" else path, token=stranger)
    assert answer.status == 200
    assert not any(other[name].encode() in answer.raw for name in ("project", "key", "limit", "invite", "admin"))


@pytest.mark.parametrize("scope, subject", [("key", "key"), ("project", "project"), ("organization", "organization")])
def test_nobody_limits_another(running, other, stranger, scope, subject):
    limit = {"scope": scope, "subject": other[subject], "kind": "requests", "limit": 0, "window_seconds": 1}
    assert running.call("POST", "/admin/v1/limits", limit, stranger).error["param"] == "subject"


def test_a_key_is_made_only_in_an_own_project(running, other, stranger):
    answer = running.call("POST", "/admin/v1/keys", {"name": "n", "project_id": other["project"]}, stranger)
    assert answer.error["param"] == "project_id"


def test_what_the_operator_limits_the_owner_cannot_lift(running, other):
    limit = {
        "scope": "organization",
        "subject": other["organization"],
        "kind": "spend_nano_usd",
        "limit": 10**9,
        "period": "month",
        "strict": True,
    }
    made = running.admin("POST", "/admin/v1/limits", limit)
    assert (made.status, made.json["set_by_operator"]) == (201, True)
    owner = other["admin_key"]
    assert running.call("DELETE", f"/admin/v1/limits/{made.json['id']}", token=owner).status == 403
    assert running.call("POST", "/admin/v1/limits", {**limit, "limit": 10**12}, owner).status == 403
    more = {"currency": "USD", "interval": "month", "threshold_amount": 10**6}
    assert running.call("POST", "/v1/organization/spend_limit", more, owner).status == 403
    assert running.call("GET", "/v1/organization/spend_limit", token=owner).json["threshold_amount"] == 100


def test_an_archived_organization_is_out(running):
    made = running.admin("POST", "/admin/v1/organizations", {"name": "leaver"}).json
    assert running.call("GET", "/v1/organization/projects", token=made["admin_key"]).status == 200
    answer = running.admin("POST", f"/admin/v1/organizations/{made['id']}/archive", {})
    assert answer.json["archived_at"] is not None
    assert running.call("GET", "/v1/organization/projects", token=made["admin_key"]).status == 401
    assert running.admin("GET", f"/admin/v1/organizations/{made['id']}").json["name"] == "leaver"
