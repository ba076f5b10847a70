"""What runs: from settings and configuration to one command line per child process.

Knows the planes' options; starts nothing.
"""

import re
import sys
from dataclasses import dataclass
from hashlib import sha256

from tokenworks.config.records import Configuration, ModelConfig
from tokenworks.models import DEFAULT_MODEL, Catalog
from tokenworks.serve.preflight import LONGEST_SOCKET_NAME, DataDirectory
from tokenworks.serve.settings import ServeSettings

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Command:
    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """`models` are the public names callers will find."""

    gateway: Command
    workers: tuple[Command, ...]
    control: Command
    models: tuple[str, ...]


def local_models(settings: ServeSettings, configuration: Configuration, catalog: Catalog) -> list[ModelConfig]:
    """The models that need a worker: those asked for by name, the file's, or the default when there are none.

    WeightsError for a name that the catalog does not know.
    """
    names = settings.model or (() if configuration.models else (DEFAULT_MODEL,))
    entries = [(name, catalog.resolve(name)) for name in names if name not in configuration.models]
    asked = [ModelConfig(name=entry.name, engine=entry.engine, weights=name) for name, entry in entries]
    return [*asked, *(model for model in configuration.models.values() if model.engine)]


def make_plan(
    settings: ServeSettings, configuration: Configuration, local: list[ModelConfig], directory: DataDirectory
) -> Plan:
    """Every child's command line. Control reads the file itself; only models outside it are named to it."""
    key = ("--cluster-key-file", str(directory.cluster_key))
    control_at = directory.address("control")
    control = ["--listen", control_at, "--data-dir", str(directory.root), *key]
    if settings.config:
        control += ["--config", str(settings.config)]
    for model in local:
        if model.name not in configuration.models:
            control += ["--local-model", model.name]
    gateway = ["--host", settings.host, "--port", str(settings.port), "--control", control_at]
    gateway += ["--data-dir", str(directory.gateway), *key]
    places = ["--control", control_at, *key, "--cache-dir", str(settings.cache_dir)]
    for path in settings.catalog:
        places += ["--catalog", str(path)]
    workers = tuple(_worker(model, directory, places) for model in local)
    names = dict.fromkeys([*(model.name for model in local), *configuration.models])
    return Plan(_command("gateway", gateway), workers, _command("control", control), tuple(names))


def _worker(model: ModelConfig, directory: DataDirectory, places: list[str]) -> Command:
    name = _file_name(model.name)
    arguments = ["--model", model.name, "--engine", str(model.engine), "--listen", directory.address(name), *places]
    arguments += ["--drain-notice", "0.01"]  # the only gateway has ended before it is told to
    if model.weights:
        arguments += ["--weights", model.weights]
    for option, value in model.options.items():
        arguments += ["--option", f"{option}={str(value).lower() if isinstance(value, bool) else value}"]
    return _command("worker", arguments, name)


def _command(plane: str, arguments: list[str], name: str | None = None) -> Command:
    return Command(name or plane, (sys.executable, "-m", f"tokenworks.{plane}", *arguments))


def _file_name(model: str) -> str:
    """A name for the worker's socket and log: the model's, where it is plain and short, else made so and unique."""
    name = f"worker-{model}"
    if PLAIN_NAME.fullmatch(model) and len(name) <= LONGEST_SOCKET_NAME:
        return name
    digest = sha256(model.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[: LONGEST_SOCKET_NAME - 9]}-{digest}"
