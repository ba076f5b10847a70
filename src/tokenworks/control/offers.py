"""What the configuration offers: models with their targets, and the providers' endpoints. Read once, at start."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenworks.config.records import Configuration, ModelConfig, ProviderConfig
from tokenworks.control.startup import StartupError
from tokenworks.models.catalog import Catalog
from tokenworks.snapshot.records import LimitsRecord, PolicyRecord, TargetRecord, UpstreamRecord
from tokenworks.snapshot.sealing import seal


@dataclass(frozen=True, slots=True)
class Offer:
    """One public name. `engine` is known when a worker of ours shall serve it. The facts about the model are the
    catalog's; a running replica knows better."""

    name: str
    targets: tuple[TargetRecord, ...] = ()
    limits: LimitsRecord = LimitsRecord()
    policy: PolicyRecord = PolicyRecord()
    price: dict[str, int] | None = None
    """Rates, where the file states them; otherwise the price book does."""
    engine: str | None = None
    context_length: int | None = None
    max_output: int | None = None
    capabilities: tuple[str, ...] = ()


def offers(configuration: Configuration, local_models: tuple[str, ...], catalog: Catalog) -> dict[str, Offer]:
    """By public name. The first one is the default model: a local one, or else the file's first."""
    named = {name: ModelConfig(name) for name in local_models} | configuration.models
    return {name: _offer(model, catalog) for name, model in named.items()}


def endpoints(configuration: Configuration, cluster_key: bytes, environment: Mapping[str, str]) -> list[UpstreamRecord]:
    """The providers' endpoints with sealed credentials. StartupError when a credential cannot be found."""
    return [_endpoint(provider, cluster_key, environment) for provider in configuration.providers.values()]


def costs(configuration: Configuration) -> dict[str, dict[str, int]]:
    """What the file says that we pay, by `provider/model`."""
    providers = configuration.providers.values()
    return {f"{each.name}/{model}": rates for each in providers for model, rates in each.costs.items()}


def _offer(model: ModelConfig, catalog: Catalog) -> Offer:
    weights = model.weights or model.name
    entry = catalog[weights] if weights in catalog and not model.targets else None
    limits, policy = model.limits, model.policy
    return Offer(
        name=model.name,
        targets=tuple(_target(text) for text in model.targets),
        limits=LimitsRecord(limits.connect, limits.first_token, limits.idle, limits.total),
        policy=PolicyRecord(policy.retries, policy.hedge, policy.on_stream_loss, policy.breaker, policy.stream_whole),
        price=model.price,
        engine=model.engine or (entry.engine if entry else None),
        context_length=entry.context_length if entry else None,
        max_output=entry.max_output if entry else None,
        capabilities=entry.capabilities if entry else (),
    )


def _target(text: str) -> TargetRecord:
    """`provider/model`; the model's own name may contain more slashes."""
    provider, _, model = text.partition("/")
    return TargetRecord(provider, model)


def _endpoint(provider: ProviderConfig, cluster_key: bytes, environment: Mapping[str, str]) -> UpstreamRecord:
    secret = _credential(provider, environment)
    return UpstreamRecord(
        id=provider.name,
        provider=provider.name,
        protocols=(provider.protocol,),
        base_url=provider.base_url,
        credential=None if secret is None else seal(cluster_key, provider.name, secret),
        region=provider.region,
    )


def _credential(provider: ProviderConfig, environment: Mapping[str, str]) -> str | None:
    where, text = f"[providers.{provider.name}] api_key", provider.api_key
    if text is None:
        return None
    if text.startswith("env:"):
        variable = text.removeprefix("env:")
        if not environment.get(variable):
            raise StartupError(f"{where} = {text!r}: the environment variable {variable} is not set")
        return environment[variable]
    if text.startswith("file:"):
        try:
            secret = Path(text.removeprefix("file:")).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StartupError(f"{where} = {text!r}: cannot be read ({error})") from error
        if not secret:
            raise StartupError(f"{where} = {text!r}: the file is empty")
        return secret
    return text
