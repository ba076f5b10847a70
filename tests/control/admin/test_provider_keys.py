"""A project's own keys of providers: sealed at once, published to gateways, never shown."""

from pathlib import Path

import pytest

from tokenworks.snapshot.sealing import SealError, owned, read_cluster_key, unseal

CONFIG = """
[providers.upstream-a]
protocol = "openai_chat"
base_url = "http://127.0.0.1:9/v1"
[models.assistant]
targets = ["upstream-a/m"]
price = {input = 1, output = 1}
"""
SECRET = "sk-very-secret-key-of-theirs-1234"


@pytest.fixture
def process(control, short_dir):
    (short_dir / "file.toml").write_text(CONFIG)
    return control("--config", str(short_dir / "file.toml")).start()


def test_added_published_listed_removed(process, short_dir):
    project = process.admin("POST", "/v1/organization/projects", {"name": "byok"}).json["id"]
    path = f"/v1/organization/projects/{project}/provider_keys"
    made = process.admin("POST", path, {"provider": "upstream-a", "key": f"{SECRET}\n", "name": "ours"})
    assert made.status == 201, made.raw
    shown = made.json
    assert (shown["provider"], shown["name"], shown["redacted_value"]) == ("upstream-a", "ours", "...1234")
    own = process.published().own_keys[project]
    (key,) = own.of("upstream-a")
    assert key.id == shown["id"]
    cluster_key = read_cluster_key(Path(short_dir) / "cluster.key")
    assert unseal(cluster_key, owned("upstream-a", project), key.sealed) == SECRET
    for other in ("upstream-a", owned("upstream-a", "proj_other"), owned("upstream-b", project)):
        with pytest.raises(SealError):
            unseal(cluster_key, other, key.sealed)
    second = process.admin("POST", path, {"provider": "upstream-a", "key": "short"}).json
    assert second["redacted_value"] == "..."
    listed = process.admin("GET", path)
    assert {each["id"] for each in listed.json["data"]} == {shown["id"], second["id"]}
    assert SECRET.encode() not in listed.raw + process.admin("GET", "/v1/organization/audit_logs").raw
    on_disk = b"".join(file.read_bytes() for file in Path(short_dir).glob("control.db*"))
    assert SECRET.encode() not in on_disk
    assert process.admin("DELETE", f"{path}/{shown['id']}").status == 200
    assert [each.id for each in process.published().own_keys[project].keys] == [second["id"]]
    process.stop()
    process.start()
    assert [each.id for each in process.published().own_keys[project].keys] == [second["id"]]
    assert process.admin("DELETE", f"{path}/{second['id']}").status == 200
    assert project not in process.published().own_keys
    assert process.admin("DELETE", f"{path}/{second['id']}").status == 404


def test_what_a_tenant_cannot_say(process):
    project = process.admin("POST", "/v1/organization/projects", {"name": "byok"}).json["id"]
    path = f"/v1/organization/projects/{project}/provider_keys"
    unknown = process.admin("POST", path, {"provider": "elsewhere", "key": "k"})
    assert (unknown.status, unknown.error["param"]) == (400, "provider")
    assert "there are: upstream-a" in unknown.error["message"]
    address = process.admin("POST", path, {"provider": "upstream-a", "key": "k", "base_url": "http://169.254.169.254"})
    assert (address.status, address.error["param"]) == (400, "base_url")
    for key in (" \n", "a\x00b"):
        bad = process.admin("POST", path, {"provider": "upstream-a", "key": key})
        assert (bad.status, bad.error["param"]) == (400, "key")
    assert project not in process.published().own_keys
