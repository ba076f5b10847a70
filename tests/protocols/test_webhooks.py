"""Signatures of webhooks: the standard's own example, and each way to get one wrong."""

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.protocols import webhooks
from tokenworks.protocols.webhooks import BadSignature

# The example in the libraries of https://github.com/standard-webhooks/standard-webhooks.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIME = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
HEADERS = {"webhook-id": ID, "webhook-timestamp": str(TIME), "webhook-signature": SIGNATURE}


def test_the_standards_own_example() -> None:
    assert webhooks.sign([SECRET], ID, TIME, BODY) == HEADERS
    webhooks.verify(SECRET, HEADERS, BODY, TIME)


def test_a_secret_without_its_prefix_is_the_same() -> None:
    assert webhooks.sign([SECRET.removeprefix("whsec_")], ID, TIME, BODY) == HEADERS


def test_one_of_several_signatures_is_enough() -> None:
    newer = webhooks.new_secret()
    headers = webhooks.sign([newer, SECRET], ID, TIME, BODY)
    for secret in (newer, SECRET):
        webhooks.verify(secret, headers, BODY, TIME)
    assert headers["webhook-signature"].split(" ")[1] == SIGNATURE


@given(st.binary(max_size=50), st.integers(0, 2**33))
def test_what_is_signed_is_verified_as_replicates_client_does_it(body: bytes, now: int) -> None:
    secret = webhooks.new_secret()
    headers = webhooks.sign([secret], ID, now, body)
    webhooks.verify(secret, headers, body, now)
    parts = secret.split("_")
    assert len(parts) == 2
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = hmac.new(base64.b64decode(parts[1]), signed, hashlib.sha256).digest()
    assert base64.b64decode(headers["webhook-signature"].split(",")[1]) == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"webhook-id": "msg_other"}, "no signature"),
        ({"webhook-id": f"{ID}.1"}, "no signature"),
        ({"webhook-timestamp": str(TIME + 1)}, "no signature"),
        ({"webhook-timestamp": "soon"}, "not a number"),
        ({"webhook-timestamp": str(TIME - 301)}, "more than 300 s"),
        ({"webhook-timestamp": str(TIME + 301)}, "more than 300 s"),
        ({"webhook-signature": SIGNATURE.replace("v1,", "v1a,")}, "no signature"),
        ({"webhook-signature": "v1,AAAA v1,é garbage"}, "no signature"),
        ({"webhook-signature": ""}, "no signature"),
    ],
)
def test_what_was_changed_is_refused(change: dict[str, str], reason: str) -> None:
    with pytest.raises(BadSignature, match=reason):
        webhooks.verify(SECRET, HEADERS | change, BODY, TIME)


@pytest.mark.parametrize("missing", sorted(HEADERS))
def test_a_missing_header_is_named(missing: str) -> None:
    headers = {name.title(): value for name, value in HEADERS.items() if name != missing}
    with pytest.raises(BadSignature, match=missing):
        webhooks.verify(SECRET, headers, BODY, TIME)


def test_another_body_or_secret_is_refused() -> None:
    with pytest.raises(BadSignature):
        webhooks.verify(SECRET, HEADERS, BODY + b" ", TIME)
    with pytest.raises(BadSignature):
        webhooks.verify(webhooks.new_secret(), HEADERS, BODY, TIME)


@pytest.mark.parametrize("secret", ["whsec_***", "whsec_", "whsec_AAAA", "whsec_" + "A" * 200])
def test_a_bad_secret_is_not_repeated(secret: str) -> None:
    with pytest.raises(ValueError) as refused:
        webhooks.sign([secret], ID, TIME, BODY)
    assert secret not in str(refused.value)


def test_a_message_needs_a_secret_and_an_id_without_dots() -> None:
    with pytest.raises(ValueError):
        webhooks.sign([], ID, TIME, BODY)
    with pytest.raises(ValueError):
        webhooks.sign([SECRET], "a.b", TIME, BODY)
