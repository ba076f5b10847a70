"""What a configuration file says, checked and typed. `load` in this package makes it from TOML."""

from dataclasses import dataclass, field
from typing import Any

from tokenworks.core.target import Policy, RouteLimits


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """`[providers.NAME]`: an endpoint we may call. `api_key` is `env:NAME`, `file:/path`, a literal, or None.

    `costs` are the rates that we pay, by the provider's own names of models; prices of ours are in ModelConfig."""

    name: str
    protocol: str
    base_url: str
    api_key: str | None = None
    region: str = ""
    costs: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """`[models.NAME]`: a public name, answered by `targets` ("provider/model") or by a worker of ours.

    `price` holds the rates of core.price by kind; None: the file does not say. A worker's model has `engine` set;
    `weights` names a catalog entry or a source; `options` are the engine's own.
    """

    name: str
    targets: tuple[str, ...] = ()
    limits: RouteLimits = RouteLimits()
    policy: Policy = Policy()
    price: dict[str, int] | None = None
    engine: str | None = None
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Configuration:
    """`options` are the settings of the `[serve]` table, by option name with underscores."""

    providers: dict[str, ProviderConfig] = field(default_factory=dict)
    models: dict[str, ModelConfig] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
