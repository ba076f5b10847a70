"""Residency policies: set, published, on record; refused where this installation or every target breaks them."""

import pytest

from tokenworks.snapshot.records import Beat, CacheRecord, SinkRecord

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
    assert process.published().sinks["objects"] == SinkRecord("objects", "eu-west", "EU", None, False)
    assert process.admin("POST", path, {"jurisdictions": ["EU", "CH"]}).status == 200
    assert process.admin("POST", PATH, {"regions": ["eu-west"]}).status == 200
    assert process.admin("POST", f"/v1/organization/projects/{project}/cache", {"seconds": 60}).status == 200
    published = process.published()
    assert published.residency[project].jurisdictions == ("EU", "CH")
    assert len(published.residency) == 2
    process.stop()
    process.start()
    assert process.published().residency == published.residency
    assert process.published().caches == published.caches == {project: CacheRecord(project, 60)}
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
        ({"regions": ["us"]}, "the sink 'database' is in eu-west"),
        ({"jurisdictions": ["CH"]}, "the sink 'database' is under EU"),
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


@pytest.mark.parametrize(
    "old, new, said",
    [
        ('region = "eu-west"\n', "", "the sink 'database' is in an unknown region"),
        ("[models", '[sinks.logs]\nregion = "us"\n[models', "the sink 'logs' is in us"),
        ("[models", '[sinks.a-collector]\njurisdiction = "US"\n[models', "the sink 'a-collector' is in an unknown"),
    ],
)
def test_a_file_that_breaks_a_policy_is_refused_at_load(process, short_dir, old, new, said):
    assert process.admin("POST", PATH, {"regions": ["eu-west"]}).status == 200
    process.stop()
    (short_dir / "file.toml").write_text(CONFIG.replace(old, new, 1))
    code, told = process.run()
    assert (code, said in told, "tokenworks residency clear" in told) == (2, True, True), told
    (short_dir / "file.toml").write_text(CONFIG + '[sinks.objects]\nregion = "us"\n')
    process.start()  # it holds only what is stored, and nothing is: gateways refuse it
    assert process.published().sinks["objects"].region == "us"


def test_a_payment_provider_is_told_what_was_used(control, short_dir):
    (short_dir / "file.toml").write_text(CONFIG)
    environment = {"STRIPE_API_KEY": "sk_test_1", "STRIPE_WEBHOOK_SECRET": "whsec_1"}
    process = control("--config", str(short_dir / "file.toml"), environment=environment).start()
    refused = process.admin("POST", PATH, {"regions": ["eu-west"]})
    assert "the sink 'payments' is in an unknown region" in refused.error["message"]
    process.stop()
    (short_dir / "file.toml").write_text(CONFIG + '[sinks.payments]\nregion = "eu-west"\n')
    process.start()
    assert process.admin("POST", PATH, {"regions": ["eu-west"]}).status == 200


def test_a_policy_is_the_next_thing_that_gateways_are_told(process):
    """Not after a while: before the one who set it has his answer it is published, and nothing comes before it."""
    with process.frames() as frames:
        full = next(frames)
        for method, body, told in (("POST", {"regions": ["eu-west"]}, 1), ("DELETE", None, 0)):
            assert process.admin(method, PATH, body).status == 200
            delta = next(frame for frame in frames if not isinstance(frame, Beat))
            assert (len(delta.residency), len(delta.removed_residency)) == (told, 1 - told)
        assert delta.revision == full.revision + 2


def test_a_worker_states_where_it_is(control, make, short_dir):
    (short_dir / "file.toml").write_text(
        CONFIG.replace('region = "eu-west"\n', 'region = "eu-west"\nretention = 0\n', 1)
    )
    process = control("--config", str(short_dir / "file.toml")).start()
    for name, labels in (("here", {}), ("there", {"region": "eu-north", "retention": 60, "trains": True})):
        assert process.internal("PUT", f"/internal/v1/replicas/{name}", make.heartbeat(**labels)).status == 204
    process.stop()
    process.start()  # it is remembered
    upstreams = process.published().upstreams
    found = {name: upstreams[name] for name in ("here", "there")}
    labels = {name: (each.region, each.jurisdiction, each.retention, each.trains) for name, each in found.items()}
    assert labels == {"here": ("eu-west", "EU", 0, False), "there": ("eu-north", "", 60, True)}
