"""Records of the lease call, MessagePack on the wire. Fields are only ever added, with a default.

One call says everything: what ended, what is given back, what is still held, how much more is wanted. Control renews
what is held, and whatever else this gateway was given is free again at once: an answer that got lost, a line
that a killed gateway forgot. So neither side keeps anything that the next call does not repair.
"""

import msgspec

LEASE_PATH = "/internal/v1/batch-lines/lease"
LEASE_SECONDS = 30
"""After so long without a call a gateway is taken for dead, and its lines run elsewhere."""
ATTEMPTS_PER_RUN = 1000
"""Attempts of a line's first run are numbered from 1, of its second from 1001, so that no two are billed as one."""
LARGEST_LINE = 32 * 1024 * 1024
LARGEST_RESULT = 16 * 1024 * 1024
LARGEST_CALL = LARGEST_RESULT + 8 * 1024 * 1024

LineId = tuple[str, int]
"""(batch id, line number)"""


class LineRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request to run, as the key that made the batch. `endpoint` is the path it would have been sent to."""

    batch: str
    number: int
    run: int
    """1 for the first time it is leased."""
    failures: int
    """How often an upstream broke under it."""
    request_id: str
    """The same in every run."""
    endpoint: str
    key_digest: str
    """Of the key that made the batch: as in the snapshot, where everything that it may do is said."""
    body: bytes

    @property
    def id(self) -> LineId:
        return self.batch, self.number


class ResultRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a line ended: the answer that a caller would have got, on one line of text, and its usage."""

    batch: str
    number: int
    status: int
    body: bytes
    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0

    @property
    def id(self) -> LineId:
        return self.batch, self.number


class ReturnedRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line that could not run now. `broke`: an upstream failed under it, which is not tried for ever."""

    batch: str
    number: int
    broke: bool = False

    @property
    def id(self) -> LineId:
        return self.batch, self.number


class LeaseCall(msgspec.Struct, frozen=True, omit_defaults=True):
    gateway_id: str
    n: int = 0
    """How many more lines are wanted."""
    holding: tuple[LineId, ...] = ()
    results: tuple[ResultRecord, ...] = ()
    returned: tuple[ReturnedRecord, ...] = ()


class LeaseAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    lines: tuple[LineRecord, ...] = ()
