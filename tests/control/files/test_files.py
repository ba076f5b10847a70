"""`/v1/files` over control's real socket, as a gateway forwards it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_the_life_of_a_file(project: Any) -> None:
    data = os.urandom(1_000_003)
    made = project.upload(data, "user_data")
    assert made.status == 200
    file = made.json
    assert file["id"].startswith("file-")
    assert (file["object"], file["bytes"], file["filename"]) == ("file", len(data), "in.jsonl")
    assert (file["purpose"], file["status"], file["expires_at"]) == ("user_data", "processed", None)
    assert project.call("GET", f"/v1/files/{file['id']}").json == file
    content = project.call("GET", f"/v1/files/{file['id']}/content")
    assert (content.status, content.raw == data) == (200, True)
    assert file in project.call("GET", "/v1/files").json["data"]
    assert project.call("DELETE", f"/v1/files/{file['id']}").json == {
        "id": file["id"],
        "object": "file",
        "deleted": True,
    }
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        gone = project.call(method, f"/v1/files/{file['id']}{path}")
        assert (gone.status, gone.error["code"]) == (404, "file_not_found")


def test_an_empty_file(project: Any) -> None:
    file = project.upload(b"", "user_data").json
    content = project.call("GET", f"/v1/files/{file['id']}/content")
    assert (file["bytes"], content.status, content.raw) == (0, 200, b"")


def test_pages(project: Any) -> None:
    ids = [project.upload(b"x", "evals").json["id"] for _ in range(5)]
    query = "/v1/files?purpose=evals"
    assert [file["id"] for file in project.call("GET", query).json["data"]] == ids[::-1]
    assert [file["id"] for file in project.call("GET", f"{query}&order=asc").json["data"]] == ids
    page = project.call("GET", f"{query}&limit=2").json
    assert ([file["id"] for file in page["data"]], page["has_more"]) == ([ids[4], ids[3]], True)
    assert (page["first_id"], page["last_id"]) == (ids[4], ids[3])
    page = project.call("GET", f"{query}&limit=3&after={ids[3]}").json
    assert ([file["id"] for file in page["data"]], page["has_more"]) == (ids[2::-1], False)
    assert project.call("GET", "/v1/files?purpose=none").json["data"] == []


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("limit=x", "limit"), ("order=up", "order"), ("after=file-x", "after")]
)
def test_bad_pages(project: Any, query: str, param: str) -> None:
    answer = project.call("GET", f"/v1/files?{query}")
    assert (answer.status, answer.error["param"]) == (400, param)


def test_nobody_else_sees_it(project: Any, running: Any, project_of: Any) -> None:
    file = project.upload(b"secret", "user_data").json
    stranger = project_of(running, "proj_other")
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        assert stranger.call(method, f"/v1/files/{file['id']}{path}").status == 404
    assert stranger.call("GET", "/v1/files").json["data"] == []
    assert project.call("GET", f"/v1/files/{file['id']}").status == 200


def test_expiry(project: Any) -> None:
    batch = project.upload(b"x").json
    assert batch["expires_at"] == batch["created_at"] + 30 * 86400
    kept = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = project.upload(b"x", **kept).json
    assert file["expires_at"] == file["created_at"] + 3600
    project.sql("UPDATE files SET expires_at = 1 WHERE id = ?", file["id"])
    assert project.call("GET", f"/v1/files/{file['id']}").status == 404


@pytest.mark.parametrize(
    ("purpose", "fields", "param"),
    [
        (None, {}, "purpose"),
        ("nonsense", {}, "purpose"),
        ("batch_output", {}, "purpose"),
        ("batch", {"expires_after[seconds]": "3600"}, "expires_after.anchor"),
        ("batch", {"expires_after[anchor]": "created_at"}, "expires_after.seconds"),
        ("batch", {"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"}, "expires_after.seconds"),
    ],
)
def test_bad_fields(project: Any, purpose: str | None, fields: dict[str, str], param: str) -> None:
    answer = project.upload(b"x", purpose, **fields)
    assert (answer.status, answer.error["param"]) == (400, param)


def test_bodies_that_are_no_upload(project: Any) -> None:
    kind = {"content-type": "multipart/form-data; boundary=x"}
    no_file = b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n'
    assert project.call("POST", "/v1/files", no_file, **kind).error["param"] == "file"
    for body in (b"", b"text", no_file[:-8]):
        assert project.call("POST", "/v1/files", body, **kind).error["code"] == "invalid_multipart"
    assert project.call("POST", "/v1/files", {"file": "x"}).error["code"] == "invalid_multipart"
    too_much = project.call("POST", "/v1/files", b"x", **kind, **{"content-length": str(2**40)})
    assert too_much.status == 413


def test_a_name_is_no_path(project: Any, running: Any) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="../../etc/p\xc3\xa4ss"\r\n\r\nx\r\n'
    body += b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n--x--\r\n'
    file = project.call("POST", "/v1/files", body, **{"content-type": "multipart/form-data; boundary=x"}).json
    assert file["filename"] == "päss"
    assert [path.name for path in (running.data_dir / "objects" / "files").glob(file["id"])] == [file["id"]]


def test_only_the_internal_token_opens_it(running: Any) -> None:
    for token in (None, "wrong", running.bootstrap["admin_key"], running.bootstrap["api_key"]):
        assert running.call("GET", "/internal/v1/objects/v1/files", None, token).status == 401
    assert running.internal("GET", "/internal/v1/objects/v1/files").error["param"] == "x-tokenworks-project"


def test_bytes_go_when_nobody_needs_them_and_survive_a_kill(
    control: Callable[..., Any], project_of: Any, short_dir: Path
) -> None:
    process = control().start()
    project = project_of(process)
    kept, gone = project.upload(b"kept").json["id"], project.upload(b"gone").json["id"]
    objects = short_dir / "objects" / "files"
    project.call("DELETE", f"/v1/files/{gone}")
    (objects / "file-x.abcd.part").write_bytes(b"half")
    project.sql(
        "INSERT INTO files (id, project_id, purpose, filename, created_ns) "
        "SELECT 'file-old', id, '', '', 1 FROM projects"
    )
    process.stop(signal.SIGKILL)
    process.start()
    wait = 0
    while {path.name for path in objects.iterdir()} != {kept} or project.sql("SELECT id FROM files") != [(kept,)]:
        wait += 1
        assert wait < 1000, list(objects.iterdir())
        project.call("GET", "/v1/files")
    assert project.call("GET", f"/v1/files/{kept}/content").raw == b"kept"


def test_a_damaged_file_never_looks_complete(control: Callable[..., Any], project_of: Any, short_dir: Path) -> None:
    project = project_of(control().start())
    file = project.upload(os.urandom(600_000), "user_data").json
    path = short_dir / "objects" / "files" / file["id"]
    raw = bytearray(path.read_bytes())
    raw[300_000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Exception, match=r"IncompleteRead|more expected"):
        project.call("GET", f"/v1/files/{file['id']}/content")
    path.unlink()
    answer = project.call("GET", f"/v1/files/{file['id']}/content")
    assert (answer.status, answer.error["code"]) == (503, "object_store")


@pytest.mark.parametrize(
    ("url", "message"), [("s3://b", "AWS_ACCESS_KEY_ID"), ("gs://b", "s3://"), ("s3://b?x=1", "unknown option 'x'")]
)
def test_a_store_that_cannot_be(control: Callable[..., Any], url: str, message: str) -> None:
    clean = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    code, said = control("--object-store", url, environment=clean).run()
    assert (code, message in said) == (2, True)
