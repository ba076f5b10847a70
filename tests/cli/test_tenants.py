"""The tenant tree, people, admin keys and the audit log from the command line, against a real server."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOKENWORKS = Path(sys.executable).with_name("tokenworks")
PAGE = (Path(__file__).parents[2] / "docs" / "tenants.md").read_text()
Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, echo_server: Any) -> Run:
    """`run("projects", "list", code=0, key=None)`: what the command printed, parsed when it asks for --json."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOKENWORKS_")}
    at = {"TOKENWORKS_URL": echo_server.url, "TOKENWORKS_DATA_DIR": str(echo_server.data_dir), "COLUMNS": "200"}

    def call(*words: str, code: int = 0, key: str | None = None) -> Any:
        more = {"TOKENWORKS_API_KEY": key} if key else {}
        ended = subprocess.run(
            [TOKENWORKS, *words], cwd=tmp_path, env=kept | at | more, capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        if code:
            return ended.stderr
        return json.loads(ended.stdout) if "--json" in words else ended.stdout

    return call


def unique(word: str) -> str:
    return f"{word}-{time.monotonic_ns()}"


def test_an_organization_lives_from_its_making_to_its_archive(run: Run) -> None:
    made = run("organizations", "create", unique("Acme"), "--json")
    owner = made["admin_key"]
    assert owner.startswith("sk-tw-admin-")
    assert made["id"] in [each["id"] for each in run("organizations", "list", "--json")]
    run("organizations", "rename", made["id"], "Acme Ltd")
    assert "Acme Ltd" in run("organizations", "list")
    assert [each["id"] for each in run("projects", "list", "--json", key=owner)] == [made["project_id"]]
    assert "operator" in run("organizations", "list", key=owner, code=1)
    run("organizations", "archive", made["id"])
    assert "error:" in run("projects", "list", key=owner, code=1)


def test_people_are_invited_and_work_in_projects(run: Run) -> None:
    owner = run("organizations", "create", unique("Org"), "--json")["admin_key"]
    project = run("projects", "create", "search", "--json", key=owner)["id"]
    invite = run(
        "invites", "create", "ann@example.com", "--role", "viewer", "--project", f"{project}:owner", "--json", key=owner
    )
    assert [each["email"] for each in run("invites", "list", "--json", key=owner)] == ["ann@example.com"]
    accepted = run("invites", "accept", invite["token"], "--name", "Ann", "--json")
    [user] = run("users", "list", "--json", key=owner)
    assert (user["id"], user["role"]) == (accepted["user_id"], "viewer")
    assert "may not do this" in run("projects", "create", "x", key=accepted["admin_key"], code=1)
    [member] = run("members", "list", "--project", project, "--json", key=owner)
    assert member["role"] == "owner"
    run("members", "remove", user["id"], "--project", project, key=owner)
    run("members", "add", "ann@example.com", "--project", project, key=owner)
    run("users", "set-role", user["id"], "member", key=owner)
    assert run("users", "list", "--json", key=owner)[0]["role"] == "member"
    run("users", "remove", user["id"], key=owner)
    assert run("users", "list", "--json", key=owner) == []
    assert "which project?" in run("members", "list", key=owner, code=2)


def test_service_accounts_and_keys(run: Run, echo_server: Any) -> None:
    made = run("organizations", "create", unique("Org"), "--json")
    owner = made["admin_key"]
    account = run("service-accounts", "create", "ci", "--json", key=owner)
    assert account["api_key"]["value"].startswith("sk-tw-")
    assert "ci" in run("service-accounts", "list", key=owner)
    run("service-accounts", "remove", account["id"], key=owner)

    key = run("keys", "create", "bound", "--scope", "files", "--network", "203.0.113.0/24", "--json", key=owner)
    assert (key["scopes"], key["networks"]) == (["files"], ["203.0.113.0/24"])
    assert "files, 203.0.113.0/24" in run("keys", "list", key=owner)
    assert echo_server.call("GET", "/v1/models", key=key["key"])[0] == 403
    changed = run("keys", "update", key["id"], "--free", "networks", "--scope", "inference", "--json", key=owner)
    assert (changed["scopes"], changed["networks"]) == (["inference"], None)
    rotated = run("keys", "rotate", key["id"], "--overlap", "0", "--json", key=owner)
    assert rotated["rotated_from"] == key["id"]
    assert echo_server.call("GET", "/v1/models", key=rotated["key"])[0] == 200
    assert echo_server.call("GET", "/v1/models", key=key["key"])[0] == 401


def test_admin_keys_have_roles_and_the_audit_log_tells_who_did_what(run: Run) -> None:
    owner = run("organizations", "create", unique("Org"), "--json")["admin_key"]
    viewer = run("admin-keys", "create", "auditor", "--role", "admin", "--days", "7", "--json", key=owner)
    assert viewer["expires_at"] > time.time()
    run("projects", "create", "seen", key=viewer["value"])
    entries = run("audit", "--event", "project.created", "--json", key=owner)
    assert entries[0]["actor"]["api_key"]["name"] == "auditor"
    assert "auditor" in run("audit", "--since", "1h", key=owner)
    run("admin-keys", "remove", viewer["id"], key=owner)
    assert viewer["id"] not in [each["id"] for each in run("admin-keys", "list", "--json", key=owner)]


def test_the_page_names_every_command(run: Run) -> None:
    for group in ("organizations", "projects", "users", "invites", "members", "service-accounts", "admin-keys"):
        shown = run(group, "--help")
        commands = [line.split()[1] for line in shown.splitlines() if line.startswith("│ ") and line[2].isalpha()]
        assert "list" in commands
        for command in commands:
            assert f"tokenworks {group} {command}" in PAGE, f"{group} {command}"
