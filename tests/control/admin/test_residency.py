"""Residency policies: set, published, on record; refused where this installation or every target breaks them."""

import pytest

CONFIG = """
[installation]
region = "eu-west"
jurisdiction = "EU"
trains = false
[providers.upstream-a]
protocol = "openai_chat"
base_url = "http://127.0.0.1:9/v1"
region = "eu-west"
jurisdiction = "EU"
retention = 0
[models.assistant]
targets = ["upstream-a/m"]
price = {input = 1, output = 1}
"""
PATH = "/v1/organization/residency"


@pytest.fixture
def process(control, short_dir):
    (short_dir / "file.toml").write_text(CONFIG)
    return control("--config", str(short_dir / "file.toml")).start()


def test_set_published_replaced_cleared_and_on_record(process, short_dir):
    project = process.admin("POST", "/v1/organization/projects", {"name": "eu"}).json["id"]
    path = f"/v1/organization/projects/{project}/residency"
    assert process.admin("GET", path).error["code"] == "residency_not_found"
    made = process.admin("POST", path, {"regions": ["eu-west"], "retention_seconds": 0})
    assert made.status == 200, made.raw
    assert process.admin("GET", path).json == made.json
    policy = process.published().residency[project]
    assert (policy.regions, policy.jurisdictions, policy.retention, policy.no_training) == (
        ("eu-west",),
        None,
        0,
        False,
    )
    assert "keeps what is stored until it is deleted" in policy.unstorable
    assert process.admin("POST", path, {"jurisdictions": ["EU", "CH"]}).status == 200
    assert process.admin("POST", PATH, {"regions": ["eu-west"]}).status == 200
    published = process.published()
    assert published.residency[project].jurisdictions == ("EU", "CH")
    assert {policy.unstorable for policy in published.residency.values()} == {""}
    assert len(published.residency) == 2
    process.stop()
    process.start()
    assert process.published().residency == published.residency
    for each in (path, PATH):
        assert process.admin("DELETE", each).status == 200
        assert process.admin("DELETE", each).status == 404
    assert process.published().residency == {}
    entries = process.admin("GET", f"/v1/organization/audit_logs?project_ids[]={project}").json["data"]
    logged = [entry["type"] for entry in entries if entry["type"].startswith("residency.")]
    assert logged == ["residency.deleted", "residency.updated", "residency.updated"]


@pytest.mark.parametrize(
    "wish, said",
    [
        ({"regions": ["us"]}, "This installation itself is in eu-west"),
        ({"jurisdictions": ["CH"]}, "This installation itself is under EU"),
        ({"no_training": True}, "upstream-a is not known not to learn"),
        ({}, "asks for nothing"),
    ],
)
def test_what_could_only_ever_be_refused_is_refused_at_once(process, wish, said):
    refused = process.admin("POST", PATH, wish)
    assert refused.status == 400
    assert said in refused.error["message"]
    assert process.published().residency == {}


def test_a_projects_policy_is_judged_with_its_organizations(process):
    project = process.admin("POST", "/v1/organization/projects", {"name": "eu"}).json["id"]
    path = f"/v1/organization/projects/{project}/residency"
    assert process.admin("POST", path, {"retention_seconds": -1}).error["param"] == "retention_seconds"
    assert process.admin("POST", path, {"regions": []}).error["param"] == "regions"
    assert process.admin("POST", PATH, {"regions": ["eu-west"]}).status == 200
    assert process.admin("POST", path, {"regions": ["eu-west", "us"]}).status == 200
    refused = process.admin("POST", path, {"regions": ["us"]})
    assert refused.error["code"] == "residency_unsatisfiable"


def test_when_the_file_changes_the_policy_stands_and_nothing_is_stored(process, short_dir):
    assert process.admin("POST", PATH, {"regions": ["eu-west"]}).status == 200
    process.stop()
    (short_dir / "file.toml").write_text(CONFIG.replace('region = "eu-west"\n', "", 1))
    process.start()
    (policy,) = process.published().residency.values()
    assert policy.unstorable.startswith("is in an unknown region")
