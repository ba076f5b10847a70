"""The life of a key."""

import hashlib
import time

import msgspec
import pytest

from tokenworks.snapshot.records import KeyRecord


def _known(process, secret):
    answer = process.internal("GET", f"/internal/v1/keys/{hashlib.sha256(secret.encode()).hexdigest()}")
    return msgspec.msgpack.decode(answer.raw, type=KeyRecord) if answer.status == 200 else None


def test_made_listed_revoked(running):
    made = running.admin("POST", "/admin/v1/keys", {"name": "a key", "models": ["m", "m", "n/o"]})
    assert made.status == 201
    key = made.json
    assert key["key"].startswith("sk-tw-")
    assert key["key"] not in key["redacted"]
    assert key["key"].endswith(key["redacted"][-4:])
    assert key["models"] == ["m", "n/o"]

    (listed,) = [each for each in running.admin("GET", "/admin/v1/keys").json["data"] if each["id"] == key["id"]]
    assert listed == {name: value for name, value in key.items() if name != "key"}
    record = _known(running, key["key"])
    assert (record.id, record.models) == (key["id"], ("m", "n/o"))

    revoked = running.admin("DELETE", f"/admin/v1/keys/{key['id']}")
    assert revoked.status == 200
    assert revoked.json["revoked_at"] is not None
    assert running.admin("DELETE", f"/admin/v1/keys/{key['id']}").json == revoked.json
    assert _known(running, key["key"]) is None


def test_a_rotated_key_works_beside_the_new_one_until_the_overlap_ends(running):
    old = running.admin("POST", "/admin/v1/keys", {"name": "turning", "models": ["m"]}).json
    begun = int(time.time())
    path = f"/admin/v1/keys/{old['id']}"
    new = running.admin("POST", f"{path}/rotate", {"overlap_seconds": 3600}).json
    assert (new["name"], new["models"], new["rotated_from"]) == ("turning", ["m"], old["id"])
    assert begun + 3600 <= _known(running, old["key"]).expires_at <= int(time.time()) + 3600
    assert _known(running, new["key"]).expires_at is None
    running.admin("POST", f"{path}/rotate", {"overlap_seconds": 7200})
    assert _known(running, old["key"]).expires_at <= int(time.time()) + 3600, "an overlap is never made longer"
    running.admin("POST", f"{path}/rotate", {"overlap_seconds": 0})
    assert _known(running, old["key"]) is None
    ended = running.admin("POST", f"{path}/rotate", {"overlap_seconds": 0})
    assert (ended.status, ended.error["code"]) == (400, "key_revoked")
    assert _known(running, new["key"]) is not None


def test_the_secret_is_nowhere_on_disk(running):
    secret = running.admin("POST", "/admin/v1/keys", {"name": "n"}).json["key"]
    files = list(running.data_dir.glob("control.db*"))
    assert files
    assert not any(secret.encode() in path.read_bytes() for path in files)


def test_an_expired_key_is_not_known(running):
    soon = int(time.time()) + 2
    key = running.admin("POST", "/admin/v1/keys", {"name": "n", "expires_at": soon}).json
    assert key["expires_at"] == soon
    while time.time() < soon + 1:
        time.sleep(0.1)
    assert _known(running, key["key"]) is None


@pytest.mark.parametrize(
    "body, param",
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": " "}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": 1}, "name"),
        ({"name": "n" * 201}, "name"),
        ({"name": "n", "models": []}, "models"),
        ({"name": "n", "models": "m"}, "models"),
        ({"name": "n", "models": ["m", 1]}, "models.1"),
        ({"name": "n", "expires_at": 1}, "expires_at"),
        ({"name": "n", "expires_at": "soon"}, "expires_at"),
        ({"name": "n", "expires_at": 10**30}, "expires_at"),
        ({"name": "n", "color": "red"}, "color"),
    ],
)
def test_refused_with_the_fields_name(running, body, param):
    answer = running.admin("POST", "/admin/v1/keys", body)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["param"] == param
    assert param in answer.error["message"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"nonsense", b"", b"\xff\xfe"])
def test_no_json_object(running, body):
    answer = running.admin("POST", "/admin/v1/keys", body)
    assert answer.status == 400
    assert answer.error["message"].startswith("The body")


def test_revoking_a_key_that_is_not_there(running):
    answer = running.admin("DELETE", "/admin/v1/keys/key_none")
    assert (answer.status, answer.error["param"]) == (404, "id")
