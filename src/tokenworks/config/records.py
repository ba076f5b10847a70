"""What a configuration file says, checked and typed. `load` in this package makes it from TOML."""

import re
from dataclasses import dataclass, field
from typing import Any

from tokenworks.core.target import Policy, RouteLimits

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """`[providers.NAME.models."MODEL"]`: what is known of one model there; see snapshot.records.TargetRecord."""

    context_length: int | None = None
    quantization: str = ""
    capabilities: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """`[providers.NAME]`: an endpoint we may call.

    Each of `api_keys` is `env:NAME` (`env:A:B`: the values of several, joined by colons), `file:/path` or a literal.
    `base_url` may hold placeholders, `{region}` and the names in `settings`, until it is asked for. The labels are
    those of snapshot.records.UpstreamRecord. `costs` are the rates that we pay, by the provider's own names of models;
    prices of ours are in ModelConfig.
    """

    name: str
    protocols: tuple[str, ...]
    base_url: str
    api_keys: tuple[str, ...] = ()
    auth: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    quirks: tuple[str, ...] = ()
    region: str = ""
    jurisdiction: str = ""
    retention: int | None = None
    trains: bool | None = None
    quantization: str = ""
    capabilities: tuple[str, ...] | None = None
    costs: dict[str, dict[str, int]] = field(default_factory=dict)
    models: dict[str, ModelFacts] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Placeholders of the base URL that nothing fills."""
        return [name for name in dict.fromkeys(PLACEHOLDER.findall(self.base_url)) if not self._filling.get(name)]

    @property
    def url(self) -> str:
        return PLACEHOLDER.sub(lambda found: self._filling.get(found[1]) or found[0], self.base_url)

    @property
    def _filling(self) -> dict[str, str]:
        return {"region": self.region, **self.settings}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """`[models.NAME]`: a public name, answered by `targets` ("provider/model") or by a worker of ours.

    `price` holds the rates of core.price by kind; None: the file does not say. A worker's model has `engine` set;
    `adapter_of` names one whose replicas answer with an adapter that is called as this model is.
    `weights` names a catalog entry or a source; `options` are the engine's own.
    """

    name: str
    targets: tuple[str, ...] = ()
    limits: RouteLimits = RouteLimits()
    policy: Policy = Policy()
    price: dict[str, int] | None = None
    engine: str | None = None
    adapter_of: str | None = None
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    guardrails: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AliasConfig:
    """`[aliases.NAME]`: a virtual model. `definition` is the table that core.aliases.reading takes, `price` what its
    requests cost, where that is not the price of the model that answers."""

    name: str
    definition: dict[str, Any]
    price: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Stated:
    """`[installation]` and `[sinks.NAME]`: what the operator states of all that is its own, and of one of them or of
    somebody else who is told of requests. The labels are those of snapshot.records.UpstreamRecord; the installation's
    `retention` is that of its replicas."""

    region: str = ""
    jurisdiction: str = ""
    retention: int | None = None
    trains: bool | None = None


@dataclass(frozen=True, slots=True)
class GuardrailConfig:
    """`[guardrails.NAME]`: see snapshot.records.GuardrailRecord. `secret` is `env:NAME`, `file:/path` or a literal."""

    name: str
    kind: str = ""
    phase: str = "both"
    action: str = "redact"
    on_failure: str = "closed"
    timeout: float = 1.0
    all: bool = False
    projects: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    entities: tuple[str, ...] = ()
    patterns: dict[str, str] = field(default_factory=dict)
    phone_regions: tuple[str, ...] = ("US",)
    restore: bool = False
    url: str = ""
    secret: str = ""
    region: str = ""
    jurisdiction: str = ""
    retention: int | None = None
    trains: bool | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """`options` are the settings of the `[serve]` table, by option name with underscores."""

    providers: dict[str, ProviderConfig] = field(default_factory=dict)
    models: dict[str, ModelConfig] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    installation: Stated = Stated()
    sinks: dict[str, Stated] = field(default_factory=dict)
    aliases: dict[str, AliasConfig] = field(default_factory=dict)
    guardrails: dict[str, GuardrailConfig] = field(default_factory=dict)
    """In the order in which they are applied."""
