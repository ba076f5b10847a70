"""Signed documents: what exactly is signed, and how anybody can check it.

The signature is Ed25519 over the document without its `signature`, as JSON with sorted keys and no white space, in
UTF-8 (RFC 8785, for documents without fractions). Public keys are published as a JSON Web Key Set (RFC 8037).
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALGORITHM = "Ed25519"


class NotSigned(Exception):
    """The document is not what was signed; the message says why."""


def canonical(document: Mapping[str, Any]) -> bytes:
    signed = {name: value for name, value in document.items() if name != "signature"}
    return json.dumps(signed, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def key_id(public: bytes) -> str:
    return f"rk_{hashlib.sha256(public).hexdigest()[:24]}"


def sign(document: Mapping[str, Any], private: bytes) -> dict[str, Any]:
    """The document with its signature."""
    key = Ed25519PrivateKey.from_private_bytes(private)
    signature = {
        "algorithm": ALGORITHM,
        "key_id": key_id(key.public_key().public_bytes_raw()),
        "value": _text(key.sign(canonical(document))),
    }
    return {**document, "signature": signature}


def verify(document: Mapping[str, Any], keys: Mapping[str, Any]) -> str:
    """The id of the key that signed it. `keys`: a JSON Web Key Set. NotSigned when none of them did."""
    signature = document.get("signature")
    if not isinstance(signature, dict) or signature.get("algorithm") != ALGORITHM:
        raise NotSigned("it has no Ed25519 signature")
    named = str(signature.get("key_id"))
    known = [each for each in keys.get("keys", ()) if each.get("kid") == named]
    if not known:
        raise NotSigned(f"it names the key {named}, which is not among those published")
    try:
        public = Ed25519PublicKey.from_public_bytes(_bytes(known[0]["x"]))
        public.verify(_bytes(signature["value"]), canonical(document))
    except (InvalidSignature, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotSigned("it was changed after it was signed") from error
    return named


def published(public: bytes) -> dict[str, str]:
    """One key of a JSON Web Key Set."""
    return {"kty": "OKP", "crv": ALGORITHM, "use": "sig", "alg": "EdDSA", "kid": key_id(public), "x": _text(public)}


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
