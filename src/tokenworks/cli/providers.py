"""`tokenworks providers`: who can be called, what is known of them, and whether they answer. Needs no server."""

import asyncio
import os
import secrets
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec.structs import replace
from rich.text import Text

from tokenworks.cli import output
from tokenworks.cli.connection import AsJson
from tokenworks.cli.output import USAGE, CommandFailed
from tokenworks.config import ConfigError, Configuration, ProviderConfig, load
from tokenworks.config.catalog import known_providers
from tokenworks.control.offers import endpoint
from tokenworks.control.startup import StartupError
from tokenworks.core.errors import Fault, TokenworksError
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.gateway.upstreams.probe import Probe
from tokenworks.protocols import PROTOCOLS, codec
from tokenworks.snapshot.records import UpstreamRecord

Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Your configuration; ./tokenworks.toml where there is one."),
]
Name = Annotated[str, typer.Argument(help="The provider's name, as targets have it.")]

DEFAULT_CONFIG = Path("tokenworks.toml")
UNKNOWN = "unknown"

providers = typer.Typer(no_args_is_help=True, help="Providers that can be called.", rich_markup_mode="rich")


def register(app: typer.Typer) -> None:
    app.add_typer(providers, name="providers")


@providers.command("list", epilog="Example: tokenworks providers list")
def list_providers(config: Config = None, json: AsJson = False) -> None:
    """Every provider that comes with the product, and those of your configuration."""
    _, found = _read(config)
    if json:
        output.print_json([_facts(provider) for provider in found.values()])
        return
    rows = [
        (
            provider.name,
            ", ".join(provider.protocols),
            provider.jurisdiction or UNKNOWN,
            _kept(provider.retention),
            {None: UNKNOWN, True: "yes", False: "no"}[provider.trains],
            _key_state(provider),
        )
        for provider in found.values()
    ]
    columns = ("NAME", "PROTOCOLS", "JURISDICTION", "KEEPS", "TRAINS", "KEY")
    output.print_table(columns, rows, wrap=("PROTOCOLS", "KEY"))


@providers.command(epilog="Example: tokenworks providers show bedrock")
def show(name: Name, config: Config = None, json: AsJson = False) -> None:
    """All that is known of one. What is unknown is not promised by it to everybody."""
    facts = _facts(_find(name, _read(config)[1]))
    if json:
        output.print_json(facts)
    else:
        output.print_table(("FACT", ""), [(fact, _shown(value)) for fact, value in facts.items()], wrap=("",))


@providers.command(epilog="Example: tokenworks providers test groq --model openai/gpt-oss-20b")
def test(
    name: Name,
    model: Annotated[
        str | None, typer.Option(help="Its own name of a model; one of your targets when left out.")
    ] = None,
    config: Config = None,
    json: AsJson = False,
) -> None:
    """Ask it for one token with each of its keys, and say what is wrong. It may cost a fraction of a cent."""
    configuration, found = _read(config)
    provider = _find(name, found)
    if provider.missing:
        raise CommandFailed(f"{name} needs {', '.join(provider.missing)}: set it in [providers.{name}]", USAGE)
    model = model or _model_of(name, configuration)
    cluster_key = secrets.token_bytes(32)
    try:
        record = endpoint(provider, cluster_key, os.environ)
    except StartupError as error:
        raise CommandFailed(f"{error}; set it, or name another key in [providers.{name}]", USAGE) from error
    results = asyncio.run(_ask(record, model, cluster_key))
    if json:
        output.print_json(results)
    else:
        for result in results:
            output.console.print(Text(f"{result['key']}: {result['said']}"), soft_wrap=True)
    if any(not result["ok"] for result in results):
        raise typer.Exit(output.FAILED)


async def _ask(record: UpstreamRecord, model: str, cluster_key: bytes) -> list[dict[str, Any]]:
    task = codec(record.protocols[0]).tasks[0]
    results = []
    for number, key in enumerate(record.credentials or (None,), start=1):
        one = _with_key(record, key)
        upstreams = Upstreams(cluster_key)
        begun = time.perf_counter()
        label = "no key" if key is None else f"key {number} of {len(record.credentials)}"
        try:
            await Probe(upstreams).ask(one, model, task)
            said = {
                "ok": True,
                "fault": None,
                "said": f"{record.provider} answered in {time.perf_counter() - begun:.2f} s",
            }
        except TokenworksError as error:
            said = {"ok": False, "fault": error.fault.value, "said": _diagnosis(error, record, model)}
        finally:
            await upstreams.close()
        results.append({"provider": record.provider, "model": model, "key": label, **said})
    return results


def _with_key(record: UpstreamRecord, key: Any) -> UpstreamRecord:
    return replace(record, credentials=() if key is None else (key,))


def _diagnosis(error: TokenworksError, record: UpstreamRecord, model: str) -> str:
    table = f"[providers.{record.provider}]"
    remedy = {
        Fault.CREDENTIAL: f"the key is wrong, expired or may not do this: check api_key in {table}",
        Fault.QUOTA: "its quota or credit is used up: see your account there",
        Fault.RATE_LIMIT: "the key is right, and its rate limit is reached: try again later",
        Fault.UNSUITABLE: f"it does not know the model {model!r}, or not in this region: choose another with --model, "
        f"or check region and base_url in {table}",
        Fault.NETWORK: f"nothing answers at {record.base_url}: check base_url and region in {table}, and the network",
        Fault.SILENT: "it accepts connections and does not answer",
        Fault.SLOW: "it accepts connections and does not answer",
        Fault.OVERLOAD: "the key was not judged: it is overloaded; try again later",
        Fault.GARBLED: f"what answers at {record.base_url} is no such provider: check base_url and protocol in {table}",
    }.get(error.fault)
    return f"{error.message} ({remedy})" if remedy else error.message


def _read(config: Path | None) -> tuple[Configuration, dict[str, ProviderConfig]]:
    """The configuration, and every provider by name."""
    known = known_providers(PROTOCOLS)
    path = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    if path is None:
        return Configuration(), known
    try:
        configuration = load(path, protocols=PROTOCOLS, engines=None, known_providers=known)
    except ConfigError as error:
        raise CommandFailed(str(error), USAGE) from error
    return configuration, known | configuration.providers


def _find(name: str, found: dict[str, ProviderConfig]) -> ProviderConfig:
    if name not in found:
        raise CommandFailed(f"there is no provider {name!r}; `tokenworks providers list` shows them", USAGE)
    return found[name]


def _model_of(name: str, configuration: Configuration) -> str:
    for model in configuration.models.values():
        for target in model.targets:
            if target.startswith(f"{name}/"):
                return target.partition("/")[2]
    raise CommandFailed(f"no target of your configuration is of {name}: name one of its models with --model", USAGE)


def _facts(provider: ProviderConfig) -> dict[str, Any]:
    return {
        "name": provider.name,
        "protocols": list(provider.protocols),
        "base_url": provider.url,
        "needs": provider.missing,
        "key": _key_state(provider),
        "auth": provider.auth or None,
        "quirks": list(provider.quirks),
        "region": provider.region or None,
        "jurisdiction": provider.jurisdiction or None,
        "retention_seconds": provider.retention,
        "trains": provider.trains,
        "quantization": provider.quantization or None,
        "capabilities": None if provider.capabilities is None else list(provider.capabilities),
    }


def _key_state(provider: ProviderConfig) -> str:
    """Where its keys come from and whether they are there; never the keys."""
    states = []
    for key in provider.api_keys:
        scheme, _, rest = key.partition(":")
        if scheme == "env":
            missing = [name for name in rest.split(":") if not os.environ.get(name)]
            states.append(f"{rest} {'not set' if missing else 'set'}")
        elif scheme == "file":
            states.append(f"{rest} {'there' if Path(rest).exists() else 'missing'}")
        else:
            states.append("in the file")
    return ", ".join(states) or "none"


def _kept(seconds: int | None) -> str:
    if seconds is None:
        return UNKNOWN
    return "nothing" if seconds == 0 else f"{seconds // 3600} h" if seconds < 86400 else f"{seconds // 86400} d"


def _shown(value: Any) -> str:
    if value is None:
        return UNKNOWN
    return ", ".join(map(str, value)) or "–" if isinstance(value, list) else str(value)
