"""The cluster key and what is derived from it: the internal API's token, and sealed upstream credentials.

Every process of one installation has the cluster key (a file of mode 0600). A credential is encrypted
under a key derived from it and bound to its upstream's id, so a snapshot on disk or on the wire shows no
secret, and a sealed credential copied to another upstream does not open.
"""

import base64
import hashlib
import hmac
import os
import secrets
from functools import lru_cache
from pathlib import Path

from tokenworks.core.files import write_atomically

KEY_BYTES = 32
_NONCE_BYTES = 12
_VERSION = b"\x01"


class SealError(ValueError):
    """A sealed credential does not open: another cluster key, another upstream, or damage."""


def read_cluster_key(path: Path) -> bytes:
    """The key in `path`. ValueError with the remedy when it is missing, malformed or readable by others."""
    try:
        text = path.read_text().strip()
        mode = path.stat().st_mode
    except OSError as error:
        raise ValueError(
            f"cannot read the cluster key {path}: {error.strerror}; control makes it at first start"
        ) from error
    if mode & 0o077:
        raise ValueError(f"the cluster key {path} is readable by others: chmod 600 {path}")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"the cluster key {path} must be {2 * KEY_BYTES} hexadecimal digits")
    return key


def ensure_cluster_key(path: Path) -> bytes:
    """The key in `path`, made when there is none (two processes may race: the first one wins)."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        write_atomically(draft, secrets.token_hex(KEY_BYTES).encode())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return read_cluster_key(path)


def internal_token(cluster_key: bytes) -> str:
    """The bearer token of the internal API; compare it with `hmac.compare_digest`."""
    return base64.urlsafe_b64encode(_derive(cluster_key, b"tokenworks internal token 1")).decode().rstrip("=")


def webhook_secret(cluster_key: bytes, project_id: str) -> str:
    """What signs a project's webhooks, in the form of Standard Webhooks. Nothing is stored: both sides derive it."""
    secret = _derive(cluster_key, f"tokenworks webhooks 1 {project_id}".encode())
    return f"whsec_{base64.b64encode(secret).decode()}"


def file_signature(cluster_key: bytes, *parts: str) -> str:
    """Stands for a key on one file: `parts` are what it is good for (method, file, project, until when, checksum)."""
    key = _derive(cluster_key, b"tokenworks signed files 1")
    return hmac.digest(key, "\n".join(parts).encode(), "sha256").hex()


def fingerprint(cluster_key: bytes, secret: str) -> str:
    """Tells one secret from another in logs and counters; says nothing about it without the cluster key."""
    return hmac.digest(_derive(cluster_key, b"tokenworks fingerprint 1"), secret.encode(), "sha256")[:6].hex()


def owned(upstream: str, project_id: str) -> str:
    """What the key that a project brought for an upstream is bound to, in the place of the upstream alone."""
    return f"{upstream}\n{project_id}"


def guardrail(name: str) -> str:
    """What the secret of a guardrail is bound to, in the place of an upstream."""
    return f"\nguardrail\n{name}"


def seal(cluster_key: bytes, upstream: str, secret: str) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # costs a gateway without credentials too much

    nonce = secrets.token_bytes(_NONCE_BYTES)
    cipher = AESGCM(_derive(cluster_key, b"tokenworks credential 1"))
    return _VERSION + nonce + cipher.encrypt(nonce, secret.encode(), upstream.encode())


def unseal(cluster_key: bytes, upstream: str, sealed: bytes) -> str:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    cipher = AESGCM(_derive(cluster_key, b"tokenworks credential 1"))
    try:
        if sealed[:1] != _VERSION:
            raise InvalidTag
        return cipher.decrypt(nonce, text, upstream.encode()).decode()
    except (InvalidTag, ValueError) as error:
        raise SealError(
            f"the credential of upstream {upstream!r} cannot be opened: has every process the same cluster key?"
        ) from error


@lru_cache(maxsize=64)
def _derive(cluster_key: bytes, purpose: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) without salt, one block."""
    extracted = hmac.digest(bytes(hashlib.sha256().digest_size), cluster_key, "sha256")
    return hmac.digest(extracted, purpose + b"\x01", "sha256")
