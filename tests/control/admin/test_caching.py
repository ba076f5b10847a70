"""What a project wants of the cache of answers: set, published, cleared, on record."""

from tokenworks.snapshot.records import CacheRecord


def test_set_published_replaced_cleared_and_on_record(control):
    process = control().start()
    project = process.admin("POST", "/v1/organization/projects", {"name": "caching"}).json["id"]
    path = f"/v1/organization/projects/{project}/cache"
    assert process.admin("GET", path).error["code"] == "cache_not_found"
    made = process.admin("POST", path, {"seconds": 600, "similarity": 0.95})
    assert made.json == {"object": "project.cache", "project_id": project, "seconds": 600, "similarity": 0.95}
    assert process.admin("GET", path).json == made.json
    assert process.published().caches == {project: CacheRecord(project, 600, 0.95)}
    assert process.admin("POST", path, {"seconds": 0}).json["similarity"] is None
    assert process.published().caches == {project: CacheRecord(project, 0)}
    assert process.admin("DELETE", path).status == 200
    assert process.admin("DELETE", path).status == 404
    assert process.published().caches == {}
    for wrong in ({}, {"seconds": -1}, {"similarity": 2}, {"second": 1}):
        assert process.admin("POST", path, wrong).status == 400, wrong
    entries = process.admin("GET", f"/v1/organization/audit_logs?project_ids[]={project}").json["data"]
    logged = [entry["type"] for entry in entries if entry["type"].startswith("cache.")]
    assert logged == ["cache.deleted", "cache.updated", "cache.updated"]
