"""Signatures of Standard Webhooks (https://www.standardwebhooks.com), as the official clients verify them. Pure."""

import hmac
import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256

PREFIX = "whsec_"
TOLERANCE_SECONDS = 300
SECRET_BYTES = 32
SHORTEST_SECRET, LONGEST_SECRET = 24, 64
"""Bytes, as the standard has it."""


class BadSignature(Exception):
    """The message names what is wrong, never the secret."""


def new_secret() -> str:
    return PREFIX + b64encode(os.urandom(SECRET_BYTES)).decode()


def sign(secrets: Iterable[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message: one signature for each secret, so that a receiver may change its own in peace."""
    if "." in message_id:
        raise ValueError(f"the message id {message_id!r} has a dot, which separates what is signed")
    signatures = [_signature(_key(secret), message_id, timestamp, body) for secret in secrets]
    if not signatures:
        raise ValueError("a webhook needs a secret to be signed with")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{b64encode(signature).decode()}" for signature in signatures),
    }


def verify(secret: str, headers: Mapping[str, str], body: bytes, now: float) -> None:
    """BadSignature unless one of the signatures is by this secret and the time is within the tolerance."""
    given = {name.lower(): value for name, value in headers.items()}
    try:
        message_id = given["webhook-id"]
        timestamp = int(given["webhook-timestamp"])
        offered = given["webhook-signature"]
    except KeyError as error:
        raise BadSignature(f"the header {error.args[0]} is missing") from None
    except ValueError:
        raise BadSignature("webhook-timestamp is not a number") from None
    if abs(now - timestamp) > TOLERANCE_SECONDS:
        raise BadSignature(f"webhook-timestamp is more than {TOLERANCE_SECONDS} s away")
    expected = b64encode(_signature(_key(secret), message_id, timestamp, body)).decode()
    for one in offered.split(" "):
        version, _, signature = one.partition(",")
        if version == "v1" and hmac.compare_digest(signature.encode(), expected.encode()):
            return
    raise BadSignature("no signature of webhook-signature is by this secret")


def _signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> bytes:
    return hmac.digest(key, b".".join((message_id.encode(), str(timestamp).encode(), body)), sha256)


def _key(secret: str) -> bytes:
    """ValueError when it is none; the text is not repeated."""
    encoded = secret.removeprefix(PREFIX)
    try:
        key = b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise ValueError(f"a webhook secret is {PREFIX} and base64") from None
    if not SHORTEST_SECRET <= len(key) <= LONGEST_SECRET:
        raise ValueError(f"a webhook secret has {SHORTEST_SECRET} to {LONGEST_SECRET} bytes")
    return key
