"""Limits of every kind, and gateways hear of them."""

import json

import pytest

from tokenworks.snapshot.records import LimitRecord


def _published(process):
    """The limits in the first frame that a gateway gets."""
    return process.published().limits


@pytest.fixture
def project(running):
    made = running.admin("POST", "/v1/organization/projects", {"name": "limited"}).json["id"]
    yield made
    running.admin("POST", f"/v1/organization/projects/{made}/archive", {})


@pytest.mark.parametrize(
    "kind, span",
    [
        ("requests", {"window_seconds": 1}),
        ("input_tokens", {"window_seconds": 60}),
        ("output_tokens", {"window_seconds": 3600}),
        ("tokens", {"window_seconds": 86400}),
        ("uncached_input_tokens", {"window_seconds": 60}),
        ("concurrency", {}),
        ("spend_nano_usd", {"period": "day"}),
        ("spend_nano_usd", {"period": "week"}),
        ("spend_nano_usd", {"period": "total"}),
    ],
)
def test_set_changed_published_removed(running, project, kind, span):
    wish = {"scope": "project", "subject": project, "model": "smollm2-135m", "kind": kind, "limit": 7, **span}
    made = running.admin("POST", "/admin/v1/limits", wish)
    assert made.status == 201, made.raw
    record = LimitRecord(
        "project", project, "smollm2-135m", kind, 7, span.get("window_seconds", 0), span.get("period", "")
    )
    assert _published(running)[record.name] == record
    again = running.admin("POST", "/admin/v1/limits", {**wish, "limit": 8, "strict": True})
    assert again.json == {**made.json, "limit": 8, "strict": True}
    assert _published(running)[record.name].strict
    listed = running.admin("GET", f"/admin/v1/limits?scope=project&subject={project}").json["data"]
    assert listed == [again.json]
    assert running.admin("GET", f"/admin/v1/limits/{made.json['id']}").json == again.json
    assert running.admin("DELETE", f"/admin/v1/limits/{made.json['id']}").status == 200
    assert record.name not in _published(running)


def test_openais_rate_limits_are_the_same_limits(running, project):
    path = f"/v1/organization/projects/{project}/rate_limits"
    assert running.admin("POST", f"{path}/rl-smollm2-135m", {"max_tokens_per_1_minute": 900}).status == 200
    (limit,) = running.admin("GET", f"/admin/v1/limits?subject={project}").json["data"]
    assert (limit["kind"], limit["limit"], limit["window_seconds"]) == ("tokens", 900, 60)
    assert any(each.id == project and each.limit == 900 for each in _published(running).values())


def test_a_limit_outlives_a_restart(control):
    process = control("--local-model", "smollm2-135m").start()
    wish = {"scope": "model", "subject": "smollm2-135m", "kind": "concurrency", "limit": 3}
    assert process.admin("POST", "/admin/v1/limits", wish).status == 201
    process.stop()
    assert [limit.limit for limit in _published(process.start()).values()] == [3]


GOOD = {"scope": "project", "subject": "p", "kind": "requests", "limit": 1, "window_seconds": 60}


@pytest.mark.parametrize(
    "change, param",
    [
        ({"scope": "planet"}, "scope"),
        ({"kind": "joules"}, "kind"),
        ({"limit": -1}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"window_seconds": 0}, "window_seconds"),
        ({"period": "month"}, None),
        ({"window_seconds": None}, None),
        ({"kind": "concurrency"}, None),
        ({"scope": "model", "subject": "none"}, "subject"),
        ({"subject": "none"}, "subject"),
        ({"color": "red"}, "color"),
    ],
)
def test_bad_limits_name_the_field(running, change, param):
    answer = running.admin("POST", "/admin/v1/limits", {**GOOD, **change})
    assert answer.status == 400, answer.raw
    assert answer.error["param"] == param, json.dumps(answer.error)
