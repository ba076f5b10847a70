"""Records of the journal, MessagePack in the segments and on the wire. See docs/journal.md.

Per (request_id, attempt): one `Opened`, any number of `Progress`, then one `Settled`. A gateway that starts
settles what it finds open from its last progress. Control keys everything by (request_id, attempt), so a
batch may be delivered any number of times. Fields are only ever added, with a default.
"""

from operator import attrgetter

import msgspec

from tokenworks.core.usage import KINDS, Usage

VERSION = 1


class UsageRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of core.usage.Usage, in its order."""

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    cache_write_1h: int = 0
    input_audio: int = 0
    input_image: int = 0
    output_audio: int = 0
    output_image: int = 0
    priced_requests: int = 0
    audio_ms: int = 0
    images: int = 0
    gpu_ms: int = 0

    @classmethod
    def of(cls, usage: Usage) -> "UsageRecord":
        return cls(*_fields(usage))

    def usage(self) -> Usage:
        return Usage(*msgspec.structs.astuple(self))


_fields = attrgetter(*KINDS)


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
    byok: bool = False
    """Made with a key that the project brought: its provider bills the project, and nothing is charged here."""
    residency: str = ""
    """Which residency policies hold for it, and the labels of the upstream that prove them; "": none does."""
    alias: str = ""
    """The virtual model that was named, and which version of it said that `model` answers."""
    alias_version: int = 0
    alias_seed: int = 0
    """A hash of what keeps requests together, from which that version chose."""
    shadow: bool = False
    """A copy of somebody's request, whose answer nobody sees: nobody's key, and nothing is charged."""


class Progress(msgspec.Struct, tag="progress", frozen=True, omit_defaults=True):
    """Usage so far of a long stream: what is billed if the gateway dies now."""

    request_id: str
    attempt: int
    usage: UsageRecord
    charge: int = 0
    cost: int = 0
    price: str = ""
    cost_price: str = ""


class Settled(msgspec.Struct, tag="settled", frozen=True, omit_defaults=True):
    """The attempt is over, exactly once.

    `outcome`: completed | cancelled (the caller left) | failed | overtaken (another attempt at the same request
    answered first) | lost (settled at a restart). A completed one with an `error` lost its upstream so, once the answer
    was whole. `first_token_ns` and `duration_ns` count from `Opened`.
    `estimated` says that the upstream reported no usage and we counted.

    Money is nano-dollars. `usage` is what the caller is billed for and `charge` what that costs them: nothing, for an
    attempt that failed or was overtaken. `cost` is what the attempt costs us, however it ended.
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
    cost: int = 0
    price: str = ""
    """The version of the price that `charge` was computed with; "" when nothing was charged."""
    cost_price: str = ""
    """The same for `cost`."""
    tier: str = ""
    """The service tier of the answer, where the upstream tells another than was asked for."""
    reported: UsageRecord | None = None
    """What the upstream reported, where that is not `usage`."""
    counted: UsageRecord | None = None
    """What we counted ourselves, where it differs from the report by more than 1 %."""
    guardrails: str = ""
    """What guardrails found and how often, as `name:action:entity=count`, several with a comma. Never the text."""


Record = Opened | Progress | Settled
