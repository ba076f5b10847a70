"""What stands in the place of what was found: `[EMAIL_1]`, the same for the same text throughout a request."""

PATTERN = r"\[[A-Z][A-Z0-9_]{0,63}_[0-9]{1,6}\]"
"""What they all look like."""


class Placeholders:
    """`taken` is text in which none of them may stand already."""

    def __init__(self, taken: bytes = b"") -> None:
        self.restored: dict[str, str] = {}
        """By placeholder: the texts that are to come back in the answer."""
        self._taken = taken
        self._known: dict[tuple[str, str], str] = {}
        self._last: dict[str, int] = {}

    def of(self, entity: str, text: str, *, restored: bool = False) -> str:
        known = self._known.get((entity, text))
        if known is not None:
            return known
        number = self._last.get(entity, 0) + 1
        while f"[{entity}_{number}]".encode() in self._taken:
            number += 1
        self._last[entity] = number
        name = self._known[entity, text] = f"[{entity}_{number}]"
        if restored:
            self.restored[name] = text
        return name
