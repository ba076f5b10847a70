"""Whose encrypted reasoning it is: only who encrypted it can read it, and others refuse what holds it.

Claude's (`redacted_thinking`) begins with REDACTED wherever its own protocols do not carry it, in the neutral form too;
anybody else's begins with FOREIGN where Claude's protocol carries it. Either goes back to its own provider alone.
"""

REDACTED = "tokenworks.redacted:"
FOREIGN = "tokenworks.encrypted:"


def from_claude(data: str) -> str:
    """The neutral form of what Claude's protocol carries."""
    return data[len(FOREIGN) :] if data.startswith(FOREIGN) else REDACTED + data


def to_claude(encrypted: str) -> str:
    """How Claude's protocol carries it to a client, who sends it back."""
    return encrypted[len(REDACTED) :] if encrypted.startswith(REDACTED) else FOREIGN + encrypted


def is_claudes(encrypted: str | None) -> bool:
    return encrypted is not None and encrypted.startswith(REDACTED)
