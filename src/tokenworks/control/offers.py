"""What the configuration offers: models with their targets, and the providers' endpoints. Read once, at start."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tokenworks.config.records import Configuration, ModelConfig, ModelFacts, ProviderConfig
from tokenworks.control.startup import StartupError
from tokenworks.models.catalog import Catalog
from tokenworks.snapshot.records import CredentialRecord, LimitsRecord, PolicyRecord, TargetRecord, UpstreamRecord
from tokenworks.snapshot.sealing import fingerprint, seal


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
    adapter_of: str | None = None
    """The model whose replicas answer it, with an adapter of this name."""
    context_length: int | None = None
    max_output: int | None = None
    capabilities: tuple[str, ...] = ()


def answers(offer: Offer, model: str) -> bool:
    """Whether a replica of `model` does."""
    return model == (offer.adapter_of or offer.name)


def offers(configuration: Configuration, local_models: tuple[str, ...], catalog: Catalog) -> dict[str, Offer]:
    """By public name. The first one is the default model: a local one, or else the file's first."""
    named = {name: ModelConfig(name) for name in local_models} | configuration.models
    return {name: _offer(model, catalog, configuration.providers) for name, model in named.items()}


def endpoints(configuration: Configuration, cluster_key: bytes, environment: Mapping[str, str]) -> list[UpstreamRecord]:
    """The providers' endpoints with sealed credentials. StartupError when a credential cannot be found."""
    return [endpoint(provider, cluster_key, environment) for provider in configuration.providers.values()]


def costs(configuration: Configuration) -> dict[str, dict[str, int]]:
    """What the file says that we pay, by `provider/model`."""
    providers = configuration.providers.values()
    return {f"{each.name}/{model}": rates for each in providers for model, rates in each.costs.items()}


def _offer(model: ModelConfig, catalog: Catalog, providers: Mapping[str, ProviderConfig]) -> Offer:
    weights = model.weights or model.adapter_of or model.name
    entry = catalog[weights] if weights in catalog and not model.targets else None
    limits, policy = model.limits, model.policy
    return Offer(
        name=model.name,
        targets=tuple(_target(text, providers) for text in model.targets),
        limits=LimitsRecord(limits.connect, limits.first_token, limits.idle, limits.total),
        policy=PolicyRecord(**asdict(policy)),
        price=model.price,
        engine=model.engine or (entry.engine if entry else None),
        adapter_of=model.adapter_of,
        context_length=entry.context_length if entry else None,
        max_output=entry.max_output if entry else None,
        capabilities=entry.capabilities if entry else (),
    )


def _target(text: str, providers: Mapping[str, ProviderConfig]) -> TargetRecord:
    """`provider/model`; the model's own name may contain more slashes."""
    provider, _, model = text.partition("/")
    facts = providers[provider].models.get(model, ModelFacts()) if provider in providers else ModelFacts()
    return TargetRecord(
        provider,
        model,
        context_length=facts.context_length,
        quantization=facts.quantization,
        capabilities=facts.capabilities,
    )


def endpoint(provider: ProviderConfig, cluster_key: bytes, environment: Mapping[str, str]) -> UpstreamRecord:
    """StartupError when a credential cannot be found."""
    secrets = [credential(f"[providers.{provider.name}] api_key", text, environment) for text in provider.api_keys]
    return UpstreamRecord(
        id=provider.name,
        provider=provider.name,
        protocols=provider.protocols,
        base_url=provider.url,
        credentials=tuple(
            CredentialRecord(fingerprint(cluster_key, secret), seal(cluster_key, provider.name, secret))
            for secret in dict.fromkeys(secrets)
        ),
        quirks=provider.quirks,
        region=provider.region,
        jurisdiction=provider.jurisdiction,
        retention=provider.retention,
        trains=provider.trains,
        quantization=provider.quantization,
        capabilities=provider.capabilities,
        auth=provider.auth,
        settings={"region": provider.region, **provider.settings} if provider.auth else {},
    )


def credential(where: str, text: str, environment: Mapping[str, str]) -> str:
    """The secret itself. StartupError, which says `where`, when it cannot be found."""
    if text.startswith("env:"):
        variables = text.removeprefix("env:").split(":")
        for variable in variables:
            if not environment.get(variable):
                raise StartupError(f"{where} = {text!r}: the environment variable {variable} is not set")
        return ":".join(environment[variable] for variable in variables)
    if text.startswith("file:"):
        try:
            secret = Path(text.removeprefix("file:")).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise StartupError(f"{where} = {text!r}: cannot be read ({error})") from error
        if not secret:
            raise StartupError(f"{where} = {text!r}: the file is empty")
        return secret
    return text
