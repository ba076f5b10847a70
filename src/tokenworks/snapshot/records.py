"""Records of the snapshot stream, MessagePack on the wire. See docs/snapshot.md.

A subscriber gets one `Full` frame, then a `Delta` for each later revision and a `Beat` every second of
silence. Applying the deltas in order to the full state gives the state of the last revision. Fields are
only ever added, with a default; a reader ignores what it does not know.
"""

from fractions import Fraction
from functools import cached_property
from typing import Any

import msgspec

from tokenworks.core.aliases import reading
from tokenworks.core.aliases.records import Alias
from tokenworks.core.caller import Caller
from tokenworks.core.price import Price, Tariff, When
from tokenworks.core.routing import ORDER

VERSION = 1


class KeyRecord(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
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

    @cached_property
    def caller(self) -> Caller:
        """Who asks with it."""
        models = frozenset(self.models) if self.models is not None else None
        regions = frozenset(self.regions) if self.regions is not None else None
        return Caller(self.id, self.project_id, self.organization_id, models, regions)


class LimitRecord(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """At most `limit` of one kind, in a window of some seconds or in a period of the calendar."""

    scope: str
    """key | project | organization | model | provider: whose requests are counted together."""
    id: str
    """The id of the key, project or organization; the public name of the model; the name of the provider."""
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
    """Never exceeded by one unit, so the worst case is reserved. A budget always is."""
    offset: int = 0
    """Seconds that are added to a period's borders in UTC: -3600 for midnights one hour east of Greenwich."""

    @cached_property
    def name(self) -> str:
        """What tells it from every other limit; its own `limit`, `strict` and `offset` may change."""
        return "\t".join((self.scope, self.id, self.model or "", self.kind, str(self.window), self.period))


class SpendRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the ledger knows to be spent of a budget, in the period that began at `begins` (Unix seconds)."""

    name: str
    """A `LimitRecord.name`."""
    begins: int
    spent: int


class LimitsRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Seconds; see core.target.RouteLimits."""

    connect: float = 2.0
    first_token: float = 60.0
    idle: float = 30.0
    total: float = 600.0


class WhenRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """See core.price.When; a factor is numerator and denominator."""

    factors: dict[str, tuple[int, int]]
    tier: str = ""
    above: int = 0
    region: str = ""


class PriceRecord(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """One version of a price; see core.price.Price. Of several that are in force the narrowest owner's applies."""

    rates: dict[str, int]
    """Nano-dollars for a million units of each kind."""
    when: tuple[WhenRecord, ...] = ()
    id: str = ""
    starts: int = 0
    """Unix seconds."""
    ends: int | None = None
    organization_id: str = ""
    """Only for this organization's requests. "": for everybody's."""
    project_id: str = ""

    @cached_property
    def price(self) -> Price:
        when = [
            When({kind: Fraction(*factor) for kind, factor in each.factors.items()}, each.tier, each.above, each.region)
            for each in self.when
        ]
        return Price(self.rates, when, id=self.id, starts=self.starts, ends=self.ends)


FREE = PriceRecord({"input": 0, "output": 0}, id="free")
"""What is given away, said aloud."""


class PolicyRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What becomes of a request when an upstream fails; see core.target.Policy."""

    retries: int = 2
    hedge: float = 0.95
    on_stream_loss: str = "resume"
    breaker: int = 5
    stream_whole: bool = True
    sort: str = ORDER
    cache: int = 0
    cache_max: int = 0
    cache_price: float = 0.0
    semantic_model: str = ""
    semantic_threshold: float = 0.0
    semantic_temperature: float = 1.0


class TargetRecord(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    upstream: str
    """An `UpstreamRecord.id`."""
    model: str
    """The name the upstream knows the model by."""
    costs: tuple[PriceRecord, ...] = ()
    """What its answers cost us, in the order of their dates. Empty: nobody told."""
    context_length: int | None = None
    """Tokens, as its upstream serves it; None: unknown. So are the next two, which replace their upstream's."""
    quantization: str = ""
    capabilities: tuple[str, ...] | None = None

    @cached_property
    def cost(self) -> Tariff:
        return Tariff(tuple(record.price for record in self.costs))


class ModelRecord(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """A public name. `targets` in order of preference. `ready_when` "local" means a replica must answer."""

    name: str
    created: int
    targets: tuple[TargetRecord, ...]
    limits: LimitsRecord = LimitsRecord()
    prices: tuple[PriceRecord, ...] = ()
    """Versions in force now or later, in the order of their dates. Without one it cannot be asked for."""
    owned_by: str = "tokenworks"
    context_length: int | None = None
    max_output: int | None = None
    capabilities: tuple[str, ...] = ()
    default: bool = False
    """The model whose answer makes /readyz say 200."""
    policy: PolicyRecord = PolicyRecord()

    @cached_property
    def _tariffs(self) -> dict[tuple[str, str], Tariff]:
        return _by_owner(self.prices)

    def tariff(self, organization_id: str, project_id: str) -> Tariff:
        """What a project pays."""
        return _narrowest(self._tariffs, organization_id, project_id)


class AliasRecord(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """A virtual model, as the version of it that is in force. `definition` is what core.aliases.reading takes."""

    name: str
    version: int
    created: int
    """Unix seconds, of its first version."""
    definition: dict[str, Any]
    prices: tuple[PriceRecord, ...] = ()
    """What its requests cost, as ModelRecord.prices; empty: what they cost of the model that answers."""

    @cached_property
    def alias(self) -> Alias:
        """core.aliases.reading.Unreadable when control is newer than this and says what was not known yet."""
        return reading.read(self.name, self.definition, self.version)

    @cached_property
    def _tariffs(self) -> dict[tuple[str, str], Tariff]:
        return _by_owner(self.prices)

    def tariff(self, organization_id: str, project_id: str) -> Tariff | None:
        """What a project pays, where the alias has a price of its own."""
        return _narrowest(self._tariffs, organization_id, project_id) if self.prices else None


def _by_owner(prices: tuple[PriceRecord, ...]) -> dict[tuple[str, str], Tariff]:
    owners: dict[tuple[str, str], list[Price]] = {("", ""): []}
    for record in prices:
        owners.setdefault((record.organization_id, record.project_id), []).append(record.price)
    tariffs: dict[tuple[str, str], Tariff] = {}
    for owner in sorted(owners):  # everybody's, an organization's, its projects'
        otherwise = tariffs.get((owner[0], "")) or tariffs.get(("", ""))
        tariffs[owner] = Tariff(tuple(owners[owner]), otherwise)
    return tariffs


def _narrowest(tariffs: dict[tuple[str, str], Tariff], organization_id: str, project_id: str) -> Tariff:
    own = tariffs.get((organization_id, project_id)) or tariffs.get((organization_id, ""))
    return own or tariffs["", ""]


class CredentialRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sealed key (snapshot.sealing). `id` tells it from others in logs and counters and nothing about the secret."""

    id: str
    sealed: bytes
    upstream: str = ""
    """Whose key it is, where the record does not hang on that upstream."""


class OwnKeysRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Keys that a project brought itself: its requests to those upstreams are made with them alone."""

    project_id: str
    keys: tuple[CredentialRecord, ...]

    def of(self, upstream: str) -> tuple[CredentialRecord, ...]:
        return tuple(key for key in self.keys if key.upstream == upstream)


class ResidencyRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a project's, or an organization's, requests may be answered and kept. None: not restricted."""

    id: str
    """Of the project or the organization."""
    regions: tuple[str, ...] | None = None
    jurisdictions: tuple[str, ...] | None = None
    retention: int | None = None
    """Seconds for which at most whoever answers may keep what it was sent."""
    no_training: bool = False


class SinkRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A store of this installation, or somebody whom it tells of requests; the names in snapshot/residency.py, or
    what its operator calls it. Labels as an UpstreamRecord has them."""

    name: str
    region: str = ""
    jurisdiction: str = ""
    retention: int | None = None
    trains: bool | None = None


class GuardrailRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Looks at what is asked, at what is answered, or both. Those that apply to a request are applied in the order of
    their `position`; see docs/guardrails.md.

    It applies to a request for one of `models` (public names), of one of `projects`, with one of `keys` (ids of both),
    and to every request where `everybody`.
    """

    name: str
    kind: str
    """redactor | http"""
    position: int = 0
    phase: str = "both"
    """before | after | both"""
    action: str = "redact"
    """What a redactor does with what it finds: redact | block | log."""
    on_failure: str = "closed"
    """closed: what could not be looked at is refused | open: it passes."""
    timeout: float = 1.0
    """Seconds for one answer of an http hook."""
    everybody: bool = False
    models: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    """By the names of redaction.entities."""
    patterns: tuple[tuple[str, str], ...] = ()
    """(name, regular expression) pairs of the operator's own."""
    phone_regions: tuple[str, ...] = ()
    """ISO 3166 codes: whose numbers are known without the code of their country."""
    restore: bool = False
    """Placeholders in the answer become again what they stand for."""
    url: str = ""
    region: str = ""
    """Where the service at `url` is. The labels are those of an UpstreamRecord."""
    jurisdiction: str = ""
    retention: int | None = None
    trains: bool | None = None
    secret: bytes = b""
    """Sealed (snapshot.sealing): what requests to an http hook are signed with. b"": they are not."""


class CacheRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a project wants of the cache of answers, within what the policy of each model allows. None: as that says."""

    project_id: str
    seconds: int | None = None
    """So old an answer may be; 0: none from the cache, unless a request asks for one."""
    similarity: float | None = None
    """From which on the answer to a similar text is given; 0: never."""


class UpstreamRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """A provider's endpoint or one replica of ours.

    `base_url` is `http(s)://host[:port][/prefix]` or `unix:/path/to.sock`, without a trailing slash; a codec's
    path is appended to it (openai_chat: `/chat/completions`). `credentials` are used in turn.
    `quirks` are deviations of this endpoint from its protocol, by the names in gateway/upstreams/quirks.py.

    The labels from `region` on are what its operator says. Unknown is a value of its own, "" or None: whoever
    requires one of them must take it for a no.
    """

    id: str
    provider: str
    protocols: tuple[str, ...]
    base_url: str
    credentials: tuple[CredentialRecord, ...] = ()
    local: bool = False
    state: str = "ready"
    """ready | starting | restarting | draining | failed; a provider's endpoint is always ready."""
    reason: str = ""
    """Why it is not ready, for people."""
    quirks: tuple[str, ...] = ()
    region: str = ""
    """Where it answers, as its operator calls it; prices may depend on it."""
    jurisdiction: str = ""
    """Whose law can reach what it gets: ISO 3166 code of the country its operator answers to, or EU."""
    retention: int | None = None
    """Seconds for which it keeps what it was sent; 0: not at all."""
    trains: bool | None = None
    """Whether it may learn from it."""
    quantization: str = ""
    """Of the weights: bf16, fp8, int4, ..., or several with a comma."""
    capabilities: tuple[str, ...] | None = None
    """What its models can do, by the names of ModelRecord.capabilities."""
    auth: str = ""
    """How it is told the key and where its paths lie, by the names in gateway/upstreams/providers; "": as its protocol
    says."""
    settings: dict[str, str] = {}
    """What that way needs to know beside the key."""


class Full(msgspec.Struct, tag="full", frozen=True):
    version: int
    revision: int
    keys: tuple[KeyRecord, ...]
    models: tuple[ModelRecord, ...]
    upstreams: tuple[UpstreamRecord, ...]
    limits: tuple[LimitRecord, ...] = ()
    spends: tuple[SpendRecord, ...] = ()
    own_keys: tuple[OwnKeysRecord, ...] = ()
    residency: tuple[ResidencyRecord, ...] = ()
    sinks: tuple[SinkRecord, ...] = ()
    aliases: tuple[AliasRecord, ...] = ()
    guardrails: tuple[GuardrailRecord, ...] = ()
    caches: tuple[CacheRecord, ...] = ()
    shipped: dict[str, int] = {}
    """By gateway id: the number of the journal record up to which `spends` knows what it charged."""


class Delta(msgspec.Struct, tag="delta", frozen=True, omit_defaults=True):
    """`removed_*` hold digests of keys, names of models, ids of upstreams, names of limits, spends, sinks, aliases and
    guardrails;
    of own keys, ids of projects; of residency, ids of projects and organizations."""

    revision: int
    keys: tuple[KeyRecord, ...] = ()
    models: tuple[ModelRecord, ...] = ()
    upstreams: tuple[UpstreamRecord, ...] = ()
    limits: tuple[LimitRecord, ...] = ()
    spends: tuple[SpendRecord, ...] = ()
    own_keys: tuple[OwnKeysRecord, ...] = ()
    residency: tuple[ResidencyRecord, ...] = ()
    sinks: tuple[SinkRecord, ...] = ()
    aliases: tuple[AliasRecord, ...] = ()
    guardrails: tuple[GuardrailRecord, ...] = ()
    caches: tuple[CacheRecord, ...] = ()
    shipped: dict[str, int] = {}
    removed_keys: tuple[str, ...] = ()
    removed_models: tuple[str, ...] = ()
    removed_upstreams: tuple[str, ...] = ()
    removed_limits: tuple[str, ...] = ()
    removed_spends: tuple[str, ...] = ()
    removed_own_keys: tuple[str, ...] = ()
    removed_residency: tuple[str, ...] = ()
    removed_sinks: tuple[str, ...] = ()
    removed_aliases: tuple[str, ...] = ()
    removed_guardrails: tuple[str, ...] = ()
    removed_caches: tuple[str, ...] = ()


class Beat(msgspec.Struct, tag="beat", frozen=True):
    revision: int


Frame = Full | Delta | Beat
