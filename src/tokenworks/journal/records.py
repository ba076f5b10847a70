"""Records of the journal, MessagePack in the segments and on the wire. See docs/journal.md.

Per (request_id, attempt): one `Opened`, any number of `Progress`, then one `Settled`. A gateway that starts
settles what it finds open from its last progress. Control keys everything by (request_id, attempt), so a
batch may be delivered any number of times. Fields are only ever added, with a default.
"""

import msgspec

VERSION = 1


class UsageRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Disjoint input kinds, as core.usage.Usage."""

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0


class Opened(msgspec.Struct, tag="opened", frozen=True, omit_defaults=True):
    """An attempt is about to leave for its upstream. `at` is Unix nanoseconds."""

    request_id: str
    attempt: int
    at: int
    key_id: str
    project_id: str
    organization_id: str
    protocol: str
    model: str
    upstream: str
    provider: str
    upstream_model: str
    stream: bool = False
    batch: bool = False
    """A line of a batch."""
    tier: str = ""
    """The service tier it was sold as; "": the default one."""


class Progress(msgspec.Struct, tag="progress", frozen=True, omit_defaults=True):
    """Usage so far of a long stream: what is billed if the gateway dies now."""

    request_id: str
    attempt: int
    usage: UsageRecord
    charge: int = 0


class Settled(msgspec.Struct, tag="settled", frozen=True, omit_defaults=True):
    """The attempt is over, exactly once.

    `outcome`: completed | cancelled (the caller left) | failed (no charge) | lost (settled at a restart).
    `charge` is nano-dollars. `first_token_ns` and `duration_ns` count from `Opened`.
    `estimated` says that the upstream reported no usage and we counted.
    """

    request_id: str
    attempt: int
    at: int
    outcome: str
    usage: UsageRecord = UsageRecord()
    charge: int = 0
    status: int = 200
    error: str = ""
    finish_reason: str = ""
    first_token_ns: int = 0
    duration_ns: int = 0
    estimated: bool = False


Record = Opened | Progress | Settled
