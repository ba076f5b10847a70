"""Records of the snapshot stream, MessagePack on the wire. See docs/snapshot.md.

A subscriber gets one `Full` frame, then a `Delta` for each later revision and a `Beat` every second of
silence. Applying the deltas in order to the full state gives the state of the last revision. Fields are
only ever added, with a default; a reader ignores what it does not know.
"""

import msgspec

VERSION = 1


class KeyRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """`digest` is the SHA-256 hex digest of the secret; the secret itself never leaves its owner."""

    id: str
    digest: str
    project_id: str
    organization_id: str
    expires_at: int | None = None
    """Unix seconds."""
    models: tuple[str, ...] | None = None
    """None: every model."""
    scopes: tuple[str, ...] | None = None
    """What it may do: inference | files | batches. None: everything."""
    regions: tuple[str, ...] | None = None
    """Where its requests may be answered. None: everywhere."""
    networks: tuple[str, ...] | None = None
    """Where it may be used from, in CIDR notation. None: from everywhere."""


class LimitRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """At most `limit` of one kind, in a window of some seconds or in a period of the calendar (UTC)."""

    scope: str
    """key | project | organization | model: whose requests are counted together."""
    id: str
    """The id of the key, project or organization; the public name of the model."""
    model: str | None
    """Only requests for this model count. None: all of them."""
    kind: str
    """requests | input_tokens | output_tokens | tokens | uncached_input_tokens | concurrency | spend_nano_usd"""
    limit: int
    window: int = 0
    """Seconds. 0: no window, which concurrency and a `period` have."""
    period: str = ""
    """"" | day | week | month | total"""
    strict: bool = False
    """Never exceeded by one unit, so the worst case is reserved."""

    @property
    def name(self) -> str:
        """What tells it from every other limit; its own `limit` and `strict` may change."""
        return "\t".join((self.scope, self.id, self.model or "", self.kind, str(self.window), self.period))


class LimitsRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Seconds; see core.target.RouteLimits."""

    connect: float = 2.0
    first_token: float = 60.0
    idle: float = 30.0
    total: float = 600.0


class PriceRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Nano-dollars per million tokens of each kind."""

    input: int = 0
    cached_input: int = 0
    output: int = 0
    cache_write: int = 0


class TargetRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    upstream: str
    """An `UpstreamRecord.id`."""
    model: str
    """The name the upstream knows the model by."""


class ModelRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A public name. `targets` in order of preference. `ready_when` "local" means a replica must answer."""

    name: str
    created: int
    targets: tuple[TargetRecord, ...]
    limits: LimitsRecord = LimitsRecord()
    price: PriceRecord = PriceRecord()
    owned_by: str = "tokenworks"
    context_length: int | None = None
    max_output: int | None = None
    capabilities: tuple[str, ...] = ()
    default: bool = False
    """The model whose answer makes /readyz say 200."""


class UpstreamRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A provider's endpoint or one replica of ours.

    `base_url` is `http(s)://host[:port][/prefix]` or `unix:/path/to.sock`, without a trailing slash; a codec's
    path is appended to it (openai_chat: `/chat/completions`). `credential` is sealed (snapshot.sealing).
    `quirks` are deviations of this endpoint from its protocol, by the names in gateway/upstreams/quirks.py.
    """

    id: str
    provider: str
    protocols: tuple[str, ...]
    base_url: str
    credential: bytes | None = None
    local: bool = False
    state: str = "ready"
    """ready | starting | restarting | draining | failed; a provider's endpoint is always ready."""
    reason: str = ""
    """Why it is not ready, for people."""
    quirks: tuple[str, ...] = ()


class Full(msgspec.Struct, tag="full", frozen=True):
    version: int
    revision: int
    keys: tuple[KeyRecord, ...]
    models: tuple[ModelRecord, ...]
    upstreams: tuple[UpstreamRecord, ...]
    limits: tuple[LimitRecord, ...] = ()


class Delta(msgspec.Struct, tag="delta", frozen=True, omit_defaults=True):
    """`removed_*` hold digests of keys, names of models, ids of upstreams, names of limits."""

    revision: int
    keys: tuple[KeyRecord, ...] = ()
    models: tuple[ModelRecord, ...] = ()
    upstreams: tuple[UpstreamRecord, ...] = ()
    limits: tuple[LimitRecord, ...] = ()
    removed_keys: tuple[str, ...] = ()
    removed_models: tuple[str, ...] = ()
    removed_upstreams: tuple[str, ...] = ()
    removed_limits: tuple[str, ...] = ()


class Beat(msgspec.Struct, tag="beat", frozen=True):
    revision: int


Frame = Full | Delta | Beat
