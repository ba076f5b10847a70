"""The examples that AWS publishes for Signature Version 4 with S3 (sig-v4-header-based-auth)."""

import hashlib
from datetime import UTC, datetime

import pytest

from tokenworks.core.sigv4 import EMPTY_SHA256, Credentials, Signer, query_string, quoted

SIGNER = Signer(Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), "us-east-1")
NOW = datetime(2013, 5, 24, tzinfo=UTC)
HOST = {"Host": "examplebucket.s3.amazonaws.com"}


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "payload", "signature"),
    [
        (
            "GET",
            "/test.txt",
            {},
            {"Range": "bytes=0-9"},
            EMPTY_SHA256,
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test$file.text",
            {},
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/",
            {"lifecycle": ""},
            {},
            EMPTY_SHA256,
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/",
            {"max-keys": "2", "prefix": "J"},
            {},
            EMPTY_SHA256,
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_published_vectors(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], payload: str, signature: str
) -> None:
    sent = SIGNER.sign(method, path, query, {**HOST, **headers}, payload, NOW)
    assert sent["authorization"].endswith(f"Signature={signature}")
    assert sent["x-amz-date"] == "20130524T000000Z"
    names = ";".join(sorted(name.lower() for name in (*HOST, *headers, "x-amz-content-sha256", "x-amz-date")))
    assert f"SignedHeaders={names}," in sent["authorization"]


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "signature"),
    [
        ("GET", "/", {}, {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "/", {}, {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("GET", "/\u1234", {}, {}, b"", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
        (
            "GET",
            "/",
            {"Param2": "value2", "Param1": "value1"},
            {},
            b"",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "POST",
            "/",
            {},
            {"Content-Type": "application/x-www-form-urlencoded"},
            b"Param1=value1",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ],
)
def test_published_vectors_of_other_services(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes, signature: str
) -> None:
    """Of the suite: get-vanilla, post-vanilla, get-utf8, query-order-key-case, post-x-www-form-urlencoded."""
    signer = Signer(Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"), "us-east-1", "service")
    now = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
    digest = hashlib.sha256(body).hexdigest()
    sent = signer.sign(method, path, query, {"Host": "example.amazonaws.com", **headers}, digest, now)
    assert sent["authorization"].endswith(f"Signature={signature}")
    assert "x-amz-content-sha256" not in sent


def test_a_session_token_is_sent_and_signed() -> None:
    signer = Signer(Credentials("AKIA", "secret", "session"), "us-east-1")
    sent = signer.sign("GET", "/", {}, HOST, EMPTY_SHA256, NOW)
    assert sent["x-amz-security-token"] == "session"
    assert "x-amz-security-token" in sent["authorization"]
    assert "secret" not in repr(signer)


def test_encoding() -> None:
    assert quoted("/a b/ü~.-_") == "/a%20b/%C3%BC~.-_"
    assert query_string({"uploadId": "a/b", "a": " "}) == "a=%20&uploadId=a%2Fb"
