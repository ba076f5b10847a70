"""Message batches over control's real socket; the gateway is the test."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

PATH = "/v1/messages/batches"


def request(number: int, **changes: Any) -> dict[str, Any]:
    params = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": f"number {number}\n"}]}
    return {"custom_id": f"r{number}", "params": params, **changes}


def make_batch(project: Any, count: int) -> dict[str, Any]:
    made = project.call("POST", PATH, {"requests": [request(number) for number in range(1, count + 1)]})
    assert made.status == 200, made.raw
    return made.json


def lease(project: Any, count: int) -> list[Any]:
    """Validation runs beside, so the first call may come too early."""
    for _ in range(1000):
        if lines := project.turn(n=count):
            return lines
    raise AssertionError("no lines")


@pytest.fixture(autouse=True)
def ended(project: Any) -> Iterator[None]:
    yield
    for batch in project.call("GET", f"{PATH}?limit=1000").json["data"]:
        project.call("POST", f"{PATH}/{batch['id']}/cancel")
        project.turn()
        project.until(batch["id"], "ended", path=PATH, name="processing_status")


def test_from_requests_to_results(project: Any, make: Any) -> None:
    batch = make_batch(project, 3)
    counts = {"processing": 3, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    assert (batch["type"], batch["processing_status"], batch["request_counts"]) == (
        "message_batch",
        "in_progress",
        counts,
    )
    assert batch["id"].startswith("msgbatch_")
    assert batch["created_at"].endswith("Z")
    assert (batch["ended_at"], batch["results_url"], batch["archived_at"]) == (None, None, None)
    lines = lease(project, 3)
    assert {line.endpoint for line in lines} == {"/v1/messages"}
    assert json.loads(lines[0].body) == request(1)["params"]
    early = project.call("GET", f"{PATH}/{batch['id']}/results")
    assert (early.status, early.error["code"]) == (404, "results_not_ready")
    good = make.result(lines[0], b'{"type":"message"}')
    bad = make.result(lines[1], b'{"type":"error","error":{"type":"invalid_request_error","message":"no"}}', 400)
    project.turn(results=(good, bad), holding=(lines[2].id,))
    assert project.call("GET", f"{PATH}/{batch['id']}").json["request_counts"] == counts
    project.turn(results=(make.result(lines[2], b'{"type":"message"}'),))
    done = project.until(batch["id"], "ended", path=PATH, name="processing_status")
    assert done["request_counts"] == {"processing": 0, "succeeded": 2, "errored": 1, "canceled": 0, "expired": 0}
    assert done["results_url"] == f"http://public.example{PATH}/{batch['id']}/results"
    raw = project.call("GET", f"{PATH}/{batch['id']}/results").raw
    results = {line["custom_id"]: line["result"] for line in map(json.loads, raw.splitlines())}
    assert results["r1"] == {"type": "succeeded", "message": {"type": "message"}}
    assert results["r2"]["error"]["error"]["type"] == "invalid_request_error"
    assert project.call("GET", "/v1/files?limit=10000").json["data"] == [
        file for file in project.call("GET", "/v1/files").json["data"] if not file["purpose"].startswith("message")
    ]


@pytest.mark.parametrize(("how", "word"), [("cancelled", "canceled"), ("expired", "expired")])
def test_what_did_not_run_is_accounted_for(project: Any, make: Any, how: str, word: str) -> None:
    batch = make_batch(project, 4)
    lines = lease(project, 1)
    if how == "cancelled":
        canceling = project.call("POST", f"{PATH}/{batch['id']}/cancel").json
        assert canceling["processing_status"] == "canceling"
        assert canceling["cancel_initiated_at"] is not None
    else:
        project.sql("UPDATE batches SET expires_at = 1 WHERE id = ?", batch["id"])
    project.turn(results=(make.result(lines[0], b'{"type":"message"}'),))
    done = project.until(batch["id"], "ended", path=PATH, name="processing_status")
    counts = done["request_counts"]
    assert (counts["succeeded"], counts[word], sum(counts.values())) == (1, 3, 4)
    raw = project.call("GET", f"{PATH}/{batch['id']}/results").raw
    assert [json.loads(line)["result"]["type"] for line in raw.splitlines()] == ["succeeded", *[word] * 3]


def test_cancelled_before_it_began(project: Any) -> None:
    batch = make_batch(project, 500)
    project.call("POST", f"{PATH}/{batch['id']}/cancel")
    done = project.until(batch["id"], "ended", path=PATH, name="processing_status")
    assert done["request_counts"]["canceled"] == 500
    raw = project.call("GET", f"{PATH}/{batch['id']}/results").raw
    assert len(raw.splitlines()) == 500


def test_delete_and_archive(project: Any, make: Any) -> None:
    batch, other = make_batch(project, 1), make_batch(project, 1)
    assert project.call("DELETE", f"{PATH}/{batch['id']}").error["code"] == "batch_not_ended"
    project.turn(results=tuple(make.result(line, b'{"type":"message"}') for line in lease(project, 1)))
    project.turn(results=tuple(make.result(line, b'{"type":"message"}') for line in lease(project, 1)))
    for each in (batch, other):
        project.until(each["id"], "ended", path=PATH, name="processing_status")
    deleted = project.call("DELETE", f"{PATH}/{batch['id']}").json
    assert deleted == {"id": batch["id"], "type": "message_batch_deleted"}
    assert project.call("GET", f"{PATH}/{batch['id']}").status == 404
    project.sql("UPDATE files SET expires_at = 1 WHERE filename LIKE ?", f"{other['id']}%")
    archived = project.call("GET", f"{PATH}/{other['id']}").json
    assert (archived["results_url"], archived["archived_at"] is not None) == (None, True)
    assert project.call("GET", f"{PATH}/{other['id']}/results").error["code"] == "results_archived"


def test_pages(project: Any, running: Any, project_of: Any) -> None:
    ids = [make_batch(project, 1)["id"] for _ in range(4)][::-1]
    page = project.call("GET", f"{PATH}?limit=2").json
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == (ids[:2], True)
    assert (page["first_id"], page["last_id"]) == (ids[0], ids[1])
    page = project.call("GET", f"{PATH}?limit=2&after_id={ids[1]}").json
    assert [batch["id"] for batch in page["data"]] == ids[2:4]
    page = project.call("GET", f"{PATH}?limit=2&before_id={ids[3]}").json
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == (ids[1:3], True)
    assert project.call("GET", f"{PATH}?before_id=x").error["param"] == "before_id"
    stranger = project_of(running, "proj_other")
    for method, path in (("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("DELETE", "")):
        assert stranger.call(method, f"{PATH}/{ids[0]}{path}").status == 404
    assert project.call("GET", f"/v1/batches/{ids[0]}").status == 404, "the families are apart"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", "requests"),
        (b"[]", "requests"),
        (b'{"requests": []}', "requests"),
        ({"requests": [{"params": {}}]}, "requests.0"),
        ({"requests": [request(1), {"custom_id": "b"}]}, "requests.1"),
        ({"requests": [request(1, custom_id="x" * 65)]}, "requests.0"),
        ({"requests": [request(1), request(1)]}, "requests.1.custom_id"),
        ({"requests": [request(1, params={"max_tokens": 1})]}, "requests.0.params.model"),
        ({"requests": [request(1, params={"model": "m", "stream": True})]}, "requests.0.params.stream"),
        ({"requests": [request(1, surprise=1)]}, "requests.0"),
        ({"requests": [request(1)], "surprise": 1}, "requests"),
    ],
)
def test_bad_requests_are_refused_at_once(project: Any, body: Any, param: str) -> None:
    answer = project.call("POST", PATH, body)
    assert (answer.status, answer.error["param"]) == (400, param), answer.raw
