"""Who may enter, how large a body may be, and the shape of every refusal."""

import socket

import pytest

ADMIN_PATHS = [
    ("GET", "/admin/v1/keys"),
    ("POST", "/admin/v1/keys"),
    ("GET", "/admin/v1/none"),
    ("GET", "/v1/organization/x"),
]
INTERNAL_PATHS = [
    ("GET", "/internal/v1/snapshot"),
    ("GET", "/internal/v1/health"),
    ("POST", "/internal/v1/journal/gw?first=0"),
]


def _assert_shape(answer, status, code):
    assert answer.status == status, answer.raw
    assert set(answer.error) == {"message", "type", "param", "code"}
    assert answer.error["code"] == code


@pytest.mark.parametrize("method, path", ADMIN_PATHS + INTERNAL_PATHS)
@pytest.mark.parametrize("token", [None, "sk-tw-admin-unknown", "ümlaut"])
def test_nobody_enters_without_a_key(running, method, path, token):
    _assert_shape(running.call(method, path, token=token and token.encode().decode("latin-1")), 401, "invalid_api_key")


@pytest.mark.parametrize("method, path", ADMIN_PATHS)
def test_an_api_key_is_no_admin_key(running, method, path):
    answer = running.call(method, path, token=running.bootstrap["api_key"])
    _assert_shape(answer, 403, "permission_denied")


@pytest.mark.parametrize("method, path", INTERNAL_PATHS)
def test_an_admin_key_is_no_internal_token(running, method, path):
    _assert_shape(running.admin(method, path), 401, "invalid_api_key")


def test_the_internal_token_is_no_admin_key(running):
    _assert_shape(running.internal("GET", "/admin/v1/keys"), 401, "invalid_api_key")


def test_nothing_there(running):
    _assert_shape(running.admin("GET", "/admin/v1/none"), 404, "not_found")
    _assert_shape(running.call("GET", "/elsewhere"), 404, "not_found")


def test_wrong_method(running):
    _assert_shape(running.admin("PATCH", "/admin/v1/keys"), 405, "method_not_allowed")


def test_body_over_the_limit(running):
    _assert_shape(running.admin("POST", "/admin/v1/keys", b"x" * (1024 * 1024 + 1)), 413, "request_too_large")
    body = b"x" * (4 * 1024 * 1024 + 1)
    _assert_shape(running.internal("POST", "/internal/v1/journal/gw?first=0", body), 413, "request_too_large")


def test_body_over_the_limit_in_chunks(running):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(str(running.socket))
        head = f"POST /admin/v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {running.bootstrap['admin_key']}\r\n"
        connection.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(17):
            connection.sendall(chunk)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_caller_that_leaves_while_sending_disturbs_nobody(running):
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(running.socket))
        head = f"POST /admin/v1/keys HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {running.bootstrap['admin_key']}\r\n"
        connection.sendall(f"{head}content-length: 100\r\n\r\nhalf".encode())
    assert running.admin("GET", "/admin/v1/keys").status == 200


def test_the_document_is_public_and_names_the_key(running):
    document = running.call("GET", "/openapi.json").json
    nouns = {"/admin/v1/keys", "/admin/v1/usage", "/admin/v1/limits", "/v1/organization/projects"}
    assert nouns <= set(document["paths"])
    for path, operations in document["paths"].items():
        public = path in ("/admin/v1/invites/accept", "/v1/receipts/keys", "/webhooks/payments")
        assert all(public == ("security" not in operation) for operation in operations.values()), path
    assert running.call("GET", "/docs").status == 200
