"""Batches over control's real socket: made, checked, leased, done, cancelled, expired; the gateway is the test."""

import hashlib
import json
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tokenworks.batches.records import ReturnedRecord

MODEL = "smollm2-135m"
CHAT = "/v1/chat/completions"


def jsonl(count: int, **changes: Any) -> bytes:
    def line(number: int) -> dict[str, Any]:
        body = {"model": MODEL, "messages": [{"role": "user", "content": f"number {number} ü"}]}
        return {"custom_id": f"r{number}", "method": "POST", "url": CHAT, "body": body, **changes}

    return b"".join(json.dumps(line(number), ensure_ascii=False).encode() + b"\n" for number in range(1, count + 1))


def running_batch(project: Any, count: int, **more: Any) -> dict[str, Any]:
    batch = project.batch(jsonl(count), **more)
    assert batch["status"] == "validating"
    return project.until(batch["id"], "in_progress")


@pytest.fixture
def gone(project: Any) -> Any:
    """Nothing of a batch is left over for the next test."""
    yield
    for batch in project.call("GET", "/v1/batches?limit=100").json["data"]:
        if batch["status"] in ("validating", "in_progress", "cancelling", "finalizing"):
            project.call("POST", f"/v1/batches/{batch['id']}/cancel")
            for gateway_id in ("gw_1", "gw_2"):
                project.turn(gateway_id)
            project.until(batch["id"], "cancelled", "completed", "expired", "failed")


pytestmark = pytest.mark.usefixtures("gone")


def test_from_upload_to_output(project: Any, make: Any) -> None:
    batch = running_batch(project, 3, metadata={"job": "nightly"})
    assert (batch["object"], batch["endpoint"], batch["metadata"], batch["model"]) == (
        "batch",
        CHAT,
        {"job": "nightly"},
        MODEL,
    )
    assert batch["request_counts"] == {"total": 3, "completed": 0, "failed": 0}
    assert batch["expires_at"] - batch["created_at"] == 24 * 3600
    lines = project.turn(n=10)
    assert [json.loads(line.body)["messages"][0]["content"] for line in lines] == [f"number {n} ü" for n in (1, 2, 3)]
    assert {line.run for line in lines} == {1}
    assert len({line.request_id for line in lines}) == 3
    assert lines[0].key_digest == hashlib.sha256(project.control.bootstrap["api_key"].encode()).hexdigest()
    good = make.result(lines[0], b'{"id":"x"}', input=5, cached_input=2, output=3, reasoning=1)
    bad = make.result(lines[1], b'{"error":{"message":"no"}}', 400)
    holding = tuple(line.id for line in lines)
    assert project.turn(results=(good, bad), holding=holding) == []
    assert project.call("GET", f"/v1/batches/{batch['id']}").json["request_counts"] == {
        "total": 3,
        "completed": 1,
        "failed": 1,
    }
    project.turn(results=(good, make.result(lines[2], b'{"id":"z"}', input=1, output=1)))
    done = project.until(batch["id"], "completed")
    assert done["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert done["usage"] == {
        "input_tokens": 8,
        "input_tokens_details": {"cached_tokens": 2},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 12,
    }
    output, errors = project.content(done["output_file_id"]), project.content(done["error_file_id"])
    assert [line["custom_id"] for line in output] == ["r1", "r3"]
    assert output[0] == {
        "id": f"batch_req_{lines[0].request_id}",
        "custom_id": "r1",
        "response": {"status_code": 200, "request_id": lines[0].request_id, "body": {"id": "x"}},
        "error": None,
    }
    assert [line["response"]["status_code"] for line in errors] == [400]
    assert project.call("GET", f"/v1/files/{done['output_file_id']}").json["purpose"] == "batch_output"
    assert project.sql("SELECT count(*) FROM batch_lines") == [(0,)]


def test_a_result_counts_once_whoever_brings_it(project: Any, make: Any) -> None:
    batch = running_batch(project, 2)
    first, second = project.turn("gw_1", n=2)
    for _ in range(3):
        project.turn("gw_1", results=(make.result(first, b'{"who":1}', input=1),), holding=(first.id, second.id))
    project.turn("gw_2", results=(make.result(first, b'{"who":2}', 500, input=9), make.result(second, b'{"who":2}')))
    done = project.until(batch["id"], "completed")
    assert [line["response"]["body"]["who"] for line in project.content(done["output_file_id"])] == [1, 2]
    assert (done["request_counts"]["completed"], done["usage"]["input_tokens"]) == (2, 1)
    project.turn("gw_1", results=(make.result(first, b'{"who":3}'),))
    assert project.call("GET", f"/v1/batches/{batch['id']}").json == done


def test_what_a_gateway_forgets_is_free_and_what_it_holds_is_not(project: Any) -> None:
    running_batch(project, 3)
    first, second, third = project.turn("gw_1", n=3)
    assert project.turn("gw_2", n=3) == []
    assert project.turn("gw_1", holding=(first.id, third.id)) == []
    [again] = project.turn("gw_2", n=3)
    assert (again.id, again.run, again.request_id, again.body) == (second.id, 2, second.request_id, second.body)
    project.turn("gw_1")  # restarted: it knows of nothing
    assert {line.id for line in project.turn("gw_2", n=3, holding=(second.id,))} == {first.id, third.id}


def test_a_dead_gateways_lines_run_again_after_the_lease(project: Any, make: Any) -> None:
    batch = running_batch(project, 2)
    first, _ = project.turn("gw_1", n=2)
    project.sql("UPDATE batch_lines SET leased_until_ns = 1 WHERE batch_id = ?", batch["id"])
    deadline = time.monotonic() + 30
    leased: list[Any] = []
    while len(leased) < 2:
        assert time.monotonic() < deadline
        leased += project.turn("gw_2", n=2, holding=tuple(line.id for line in leased))
    assert {line.run for line in leased} == {2}
    project.turn("gw_2", results=tuple(make.result(line, b'{"by":2}') for line in leased))
    project.turn("gw_1", results=(make.result(first, b'{"by":1}'),))  # the dead one was only slow
    done = project.until(batch["id"], "completed")
    assert [line["response"]["body"] for line in project.content(done["output_file_id"])] == [{"by": 2}] * 2


def test_a_line_that_is_given_back_rests_with_its_batch_and_others_go_on(project: Any, make: Any) -> None:
    resting, other = running_batch(project, 3), running_batch(project, 1)
    lines = project.turn(n=3)
    assert {line.batch for line in lines} == {resting["id"]}
    back = tuple(ReturnedRecord(*line.id, broke=line.number == 1) for line in lines)
    [line] = project.turn(returned=back, n=10)
    assert line.batch == other["id"]
    assert project.turn(n=10, holding=(line.id,)) == []
    [(until, rests)] = project.sql("SELECT rests_until_ns, rests FROM batches WHERE id = ?", resting["id"])
    assert (until > time.time_ns(), rests) == (True, 1)
    project.sql("UPDATE batches SET rests_until_ns = 0")
    again = project.turn(n=10, holding=(line.id,))
    assert [(line.run, line.failures) for line in again] == [(2, 1), (2, 0), (2, 0)]
    project.turn(results=tuple(make.result(line) for line in again), holding=(line.id,))
    assert project.sql("SELECT rests FROM batches WHERE id = ?", resting["id"]) == [(0,)]


def test_batches_take_turns(project: Any) -> None:
    ids = [running_batch(project, 6)["id"] for _ in range(3)]
    held: tuple[Any, ...] = ()
    served = []
    for _ in range(6):
        lines = project.turn(n=2, holding=held)
        held += tuple(line.id for line in lines)
        served.append(lines[0].batch)
    assert served == ids * 2


def test_cancel_ends_with_what_is_there(project: Any, make: Any) -> None:
    batch = running_batch(project, 5)
    first, second = project.turn(n=2)
    cancelling = project.call("POST", f"/v1/batches/{batch['id']}/cancel").json
    assert (cancelling["status"], cancelling["output_file_id"]) == ("cancelling", None)
    assert project.turn(n=5, holding=(first.id, second.id)) == []
    project.turn(results=(make.result(first),), holding=(first.id, second.id))
    assert project.call("GET", f"/v1/batches/{batch['id']}").json["status"] == "cancelling"
    project.turn()
    done = project.until(batch["id"], "cancelled")
    assert (done["request_counts"], done["cancelled_at"] is not None) == (
        {"total": 5, "completed": 1, "failed": 0},
        True,
    )
    assert [line["custom_id"] for line in project.content(done["output_file_id"])] == ["r1"]
    errors = project.content(done["error_file_id"])
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert [line["custom_id"] for line in errors] == ["r2", "r3", "r4", "r5"]
    assert project.call("POST", f"/v1/batches/{batch['id']}/cancel").json["status"] == "cancelled"


def test_a_batch_that_ended_cannot_be_cancelled(project: Any, make: Any) -> None:
    batch = running_batch(project, 1)
    project.turn(results=tuple(make.result(line) for line in project.turn(n=1)))
    project.until(batch["id"], "completed")
    answer = project.call("POST", f"/v1/batches/{batch['id']}/cancel")
    assert (answer.status, answer.error["code"]) == (400, "batch_not_cancellable")


def test_the_window_ends(project: Any, make: Any) -> None:
    batch = running_batch(project, 3)
    lines = project.turn(n=1)
    project.sql("UPDATE batches SET expires_at = 1 WHERE id = ?", batch["id"])
    project.until(batch["id"], "finalizing")
    assert project.turn(n=5, holding=(lines[0].id,)) == []
    project.turn(results=(make.result(lines[0]),))
    done = project.until(batch["id"], "expired")
    assert (done["request_counts"]["completed"], done["expired_at"] is not None) == (1, True)
    assert [line["error"]["code"] for line in project.content(done["error_file_id"])] == ["batch_expired"] * 2


def test_a_revoked_key_spends_no_more(project: Any, running: Any, project_of: Any) -> None:
    made = running.admin("POST", "/admin/v1/keys", {"name": "short"}).json
    theirs = project_of(running)
    theirs.headers["x-tokenworks-key"] = made["id"]
    batch = running_batch(theirs, 2)
    running.admin("DELETE", f"/admin/v1/keys/{made['id']}")
    assert project.turn(n=5) == []
    done = project.until(batch["id"], "cancelled")
    assert [error["code"] for error in done["errors"]["data"]] == ["key_revoked"]


def test_a_project_that_was_archived_spends_no_more(control: Callable[..., Any], project_of: Any) -> None:
    process = control("--local-model", MODEL).start()
    project = project_of(process)
    batch = running_batch(project, 2)
    project.sql("UPDATE projects SET archived_at = 1")
    assert project.turn(n=5) == []
    assert project.until(batch["id"], "cancelled")["errors"]["data"][0]["code"] == "key_revoked"


def test_a_keys_models_are_the_batchs(project: Any, running: Any, project_of: Any) -> None:
    made = running.admin("POST", "/admin/v1/keys", {"name": "narrow", "models": ["other"]}).json
    theirs = project_of(running)
    theirs.headers["x-tokenworks-key"] = made["id"]
    failed = project.until(theirs.batch(jsonl(1))["id"], "failed")
    assert [(error["code"], error["line"]) for error in failed["errors"]["data"]] == [("model_not_found", 1)]


def test_a_line_may_name_a_virtual_model(project: Any, running: Any) -> None:
    made = running.admin("POST", "/admin/v1/aliases/chat", {"definition": {"to": MODEL}})
    assert made.status == 200, made.raw
    [line] = [json.loads(each) for each in jsonl(1).splitlines()]
    line["body"]["model"] = "chat"
    batch = project.batch(json.dumps(line).encode())
    assert project.until(batch["id"], "in_progress", "failed")["status"] == "in_progress"
    project.call("POST", f"/v1/batches/{batch['id']}/cancel")
    running.admin("DELETE", "/admin/v1/aliases/chat")


def test_errors_are_listed_by_line(project: Any) -> None:
    lines = jsonl(1) + b"\n{\n" + jsonl(1) + jsonl(1, custom_id="x", url="/v1/embeddings") + b'{"custom_id": 1}\n'
    failed = project.until(project.batch(lines)["id"], "failed")
    assert [(error["code"], error["line"], error["param"]) for error in failed["errors"]["data"]] == [
        ("invalid_json_line", 3, None),
        ("duplicate_custom_id", 4, "custom_id"),
        ("invalid_url", 5, "url"),
        ("invalid_request", 6, "custom_id"),
    ]
    assert failed["errors"]["object"] == "list"
    assert (failed["failed_at"] is not None, failed["output_file_id"], failed["error_file_id"]) == (True, None, None)
    empty = project.until(project.batch(b"\n")["id"], "failed")
    assert empty["errors"]["data"][0]["code"] == "empty_file"


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": "/v1/other"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"input_file_id": "file-none"}, "input_file_id"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_bad_batches(project: Any, changes: dict[str, Any], param: str) -> None:
    file = project.upload(jsonl(1)).json["id"]
    body = {"endpoint": CHAT, "completion_window": "24h", "input_file_id": file, **changes}
    answer = project.call("POST", "/v1/batches", body)
    assert (answer.status, answer.error["param"]) == (400, param)


def test_an_input_must_be_for_batches_and_ones_own(project: Any, running: Any, project_of: Any) -> None:
    for file in (project.upload(jsonl(1), "user_data"), project_of(running, "proj_other").upload(jsonl(1))):
        body = {"endpoint": CHAT, "completion_window": "24h", "input_file_id": file.json.get("id", "none")}
        assert project.call("POST", "/v1/batches", body).error["code"] == "invalid_input_file"


def test_an_input_in_use_is_not_deleted(project: Any) -> None:
    batch = running_batch(project, 1)
    path = f"/v1/files/{batch['input_file_id']}"
    assert project.call("DELETE", path).error["code"] == "file_in_use"
    project.call("POST", f"/v1/batches/{batch['id']}/cancel")
    project.until(batch["id"], "cancelled")
    assert project.call("DELETE", path).json["deleted"] is True


def test_output_that_does_not_last(project: Any, make: Any) -> None:
    batch = running_batch(project, 1, output_expires_after={"anchor": "created_at", "seconds": 7200})
    project.turn(results=tuple(make.result(line) for line in project.turn(n=1)))
    done = project.until(batch["id"], "completed")
    file = project.call("GET", f"/v1/files/{done['output_file_id']}").json
    assert file["expires_at"] == file["created_at"] + 7200


def test_pages_of_batches_and_other_peoples(project: Any, running: Any, project_of: Any) -> None:
    file = project.upload(b"{}").json["id"]
    ids = [project.batch(b"", input_file_id=file)["id"] for _ in range(3)][::-1]
    page = project.call("GET", "/v1/batches?limit=2").json
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == (ids[:2], True)
    page = project.call("GET", f"/v1/batches?limit=1&after={ids[1]}").json
    assert [batch["id"] for batch in page["data"]] == ids[2:]
    assert project.call("GET", "/v1/batches?after=batch_x").error["param"] == "after"
    stranger = project_of(running, "proj_other")
    assert stranger.call("GET", "/v1/batches").json["data"] == []
    for method, path in (("GET", ""), ("POST", "/cancel")):
        assert stranger.call(method, f"/v1/batches/{ids[0]}{path}").status == 404


def test_a_killed_control_loses_nothing_and_repeats_nothing(
    control: Callable[..., Any], project_of: Any, make: Any
) -> None:
    process = control("--local-model", MODEL).start()
    project = project_of(process)
    batch = running_batch(project, 40)
    lines = project.turn(n=30)
    stored, running = lines[:20], lines[20:]
    project.turn(
        results=tuple(make.result(line, b'{"life":1}', output=1) for line in stored),
        holding=tuple(line.id for line in running),
    )
    process.stop(signal.SIGKILL)
    process.start()
    rest = project.turn(n=100, holding=tuple(line.id for line in running))
    assert {line.number for line in rest} == set(range(31, 41)), "nothing that was stored or is held runs again"
    held = tuple(make.result(line, b'{"life":2}', output=1) for line in (*running, *rest))
    project.turn(results=held)
    process.stop(signal.SIGKILL)  # perhaps in the middle of writing the output
    process.start()
    done = project.until(batch["id"], "completed")
    assert (done["request_counts"]["completed"], done["usage"]["output_tokens"]) == (40, 40)
    output = project.content(done["output_file_id"])
    assert [line["custom_id"] for line in output] == [f"r{number}" for number in range(1, 41)]
    assert [line["response"]["body"]["life"] for line in output] == [1] * 20 + [2] * 20


def test_a_killed_control_checks_again(control: Callable[..., Any], project_of: Any) -> None:
    process = control("--local-model", MODEL).start()
    project = project_of(process)
    batch = project.batch(jsonl(30_000))
    process.stop(signal.SIGKILL)
    process.start()
    assert project.until(batch["id"], "in_progress")["request_counts"]["total"] == 30_000
    assert project.sql("SELECT count(*), max(number) FROM batch_lines") == [(30_000, 30_000)]


def test_a_damaged_input(control: Callable[..., Any], project_of: Any) -> None:
    process = control("--local-model", MODEL).start()
    project = project_of(process)
    batch = running_batch(project, 3)
    path = process.data_dir / "objects" / "files" / batch["input_file_id"]
    path.write_bytes(path.read_bytes().replace(b"number 2", b"number X"))
    assert [line.number for line in project.turn(n=3)] == [1, 3]
    failed = project.call("GET", f"/v1/batches/{batch['id']}").json
    assert failed["request_counts"]["failed"] == 1
    again = project.batch(b"", input_file_id=batch["input_file_id"])
    assert project.until(again["id"], "failed")["errors"]["data"][0]["code"] == "input_unreadable"


def test_calls_that_are_none(project: Any) -> None:
    answer = project.control.call("POST", "/internal/v1/batch-lines/lease", b"nonsense", project.control.token)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert project.control.call("POST", "/internal/v1/batch-lines/lease", b"").status == 401
