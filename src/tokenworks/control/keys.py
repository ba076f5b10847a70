"""What a key looks like: `sk-tw-` and 43 characters; its digest is kept, the key itself is shown once."""

import hashlib
import re
import secrets
from dataclasses import dataclass

API_PREFIX = "sk-tw-"
ADMIN_PREFIX = "sk-tw-admin-"
INVITE_PREFIX = "sk-tw-invite-"
SECRET_BYTES = 32
_SHAPE = re.compile(r"sk-tw-(?:admin-)?[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Secret:
    """A whole key. Its `repr` does not show it."""

    text: str

    @classmethod
    def generate(cls, prefix: str) -> "Secret":
        return cls(prefix + secrets.token_urlsafe(SECRET_BYTES))

    @property
    def digest(self) -> str:
        """One SHA-256: with 256 random bits there is nothing to guess that a slow hash would protect."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def redacted(self) -> str:
        prefix = next(each for each in (ADMIN_PREFIX, INVITE_PREFIX, API_PREFIX) if self.text.startswith(each))
        return f"{prefix}...{self.text[-4:]}"

    def __repr__(self) -> str:
        return f"Secret({self.redacted})"


def well_formed(text: str) -> bool:
    return _SHAPE.fullmatch(text) is not None


def new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"
